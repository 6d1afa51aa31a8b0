"""
Does the error reach the lower of two layers?
=============================================

Two stacked LSTMs, the loss at the last step. The lower layer learns from what the upper one passes down
at each step.
"""

import torch
from _recall import LOSS, Reader, task

import throughtime as tt

torch.manual_seed(0)
x, y = task(features=4)
tree = tt.capture(Reader(torch.nn.LSTM(4, 32, num_layers=2, batch_first=True)), x, y, loss=LOSS)
picture = tt.plots.gradient_flow(tree)

lower, upper = (float((tree[f"rnn/{place}"]["hidden_gradient"] ** 2).sum() ** 0.5) for place in (0, 1))
assert 0.1 < lower / upper < 1
print(f"It does: the lower layer receives {lower / upper:.0%} of the upper layer's gradient.")
