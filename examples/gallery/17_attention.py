"""
Does attention shorten the way to early steps?
==============================================

The same GRU is read once at its last step, and once through attention over all steps. Attention gives
every step a direct error, however far from the end it is.
"""

import torch
from _recall import LOSS, Reader, task

import throughtime as tt


class Attentive(Reader):
    def forward(self, x):
        states = self.rnn(x)[0]
        weights = (states @ states[:, -1:].mT).softmax(1)  # the last state asks
        return self.head((weights * states).sum(1))


x, y = task(features=4)
layers = []
for kind in (Reader, Attentive):
    torch.manual_seed(0)
    layers.append(tt.capture(kind(torch.nn.GRU(4, 32, batch_first=True)), x, y, loss=LOSS)["rnn"])
picture = tt.plots.compare(*layers, names=("last step", "attention"))

norms = [(each["hidden_gradient"] ** 2).sum("unit").mean("sample") ** 0.5 for each in layers]
first, with_attention = (float(norm[0] / norm.max()) for norm in norms)
assert first < 0.001
assert with_attention > 0.01
print(f"It does: the first step receives {with_attention:.0%} of the largest gradient, not {first:.0e}.")
