"""
Why does out[:, -1] of a bidirectional layer waste one direction?
=================================================================

The backward half reads from the end. At the last step it has read a single input, so that its memory
plays no part.
"""

import torch
from _recall import LOSS, task

import throughtime as tt


class Reader(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.both = torch.nn.GRU(1, 16, batch_first=True, bidirectional=True)
        self.head = torch.nn.Linear(32, 1)

    def forward(self, x):
        return self.head(self.both(x)[0][:, -1])


torch.manual_seed(0)
x, y = task(steps=20)
tree = tt.capture(Reader(), x, y, loss=LOSS)
norm = (tree["both"]["hidden_gradient"] ** 2).mean(["sample", "unit"]) ** 0.5
picture = tt.plots.heatmap(norm, rows="direction", title="Gradient of the states by direction")

found = tt.diagnose(Reader(), x, y, loss=LOSS)
assert found.to_dict()["findings"]["misread"] == "yes"
remedy = found.brief.actions[0]
print(f"Because {found.remedies[0].evidence}. Remedy:\n{remedy.text}.\n{remedy.code}")
