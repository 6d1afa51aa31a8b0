"""
Does the decoder's error reach the first word of the source?
============================================================

An encoder passes its last state to a decoder, which has a loss at each of its steps. All error of the
source crosses that one state.
"""

import torch
from _recall import LOSS

import throughtime as tt


class Translator(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.GRU(8, 32, batch_first=True)
        self.decoder = torch.nn.GRU(8, 32, batch_first=True)
        self.head = torch.nn.Linear(32, 8)

    def forward(self, source, target):
        _, state = self.encoder(source)
        return self.head(self.decoder(target, state)[0])


torch.manual_seed(0)
source, target = torch.randn(32, 30, 8), torch.randn(32, 12, 8)
tree = tt.capture(Translator(), (source, target), target, loss=LOSS)
picture = tt.plots.gradient_flow(tree)

norm = (tree["encoder"]["hidden_gradient"] ** 2).sum("unit").mean("sample") ** 0.5
share = float(norm[0] / norm[-1])
assert share < 0.01
print(f"Hardly: the first word receives {share:.1e} of the gradient of the last.")
