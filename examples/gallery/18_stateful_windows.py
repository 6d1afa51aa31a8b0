"""
Where does backpropagation stop between windows?
================================================

A long sequence is read in windows of 15 steps. The state is carried on, and detached: its value crosses
the edge, its gradient does not.
"""

import torch
from _recall import LOSS, task

import throughtime as tt


class Windows(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = torch.nn.GRU(4, 24, batch_first=True), torch.nn.Linear(24, 1)

    def forward(self, x):
        state = None
        for window in x.split(15, dim=1):
            out, state = self.rnn(window, state)
            last, state = out[:, -1], state.detach()
        return self.head(last)


torch.manual_seed(0)
x, y = task(samples=4, steps=45, features=4)
layer = tt.capture(Windows(), x, y, loss=LOSS)["rnn"]
picture = tt.plots.heatmap(layer)

norm = (layer["hidden_gradient"] ** 2).sum(["sample", "unit"])
first = int((norm > 0).argmax("time"))
assert first == 30
print(f"At step {first}, where the last window begins; before it the gradient is exactly 0.")
