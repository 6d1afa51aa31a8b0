"""
Are the gates saturated?
========================

The same LSTM twice, the second time with weights 30 times as large. Its gates lie at the ends of their
range, where their slope is flat and gradient stops.
"""

import torch
from _recall import LOSS, Reader, task

import throughtime as tt

torch.manual_seed(0)
model = Reader(torch.nn.LSTM(1, 32, batch_first=True))
x, y = task()
saturation = []
for factor in (1, 30):
    with torch.no_grad():
        model.rnn.weight_ih_l0.mul_(factor)
        model.rnn.weight_hh_l0.mul_(factor)
    layer = tt.capture(model, x, y, loss=LOSS)["rnn"]
    ends = tt.diagnostics.saturation(layer)
    saturation.append(float((ends["left"] + ends["right"]).sel(gate=["input", "forget", "output"]).mean()))
picture = tt.plots.histogram(layer, "gate_activation", title="Values of the gates, weights × 30")

assert saturation[0] < 0.1
assert saturation[1] > 0.5
print("With usual weights {:.0%} of the values are at an end; with large ones {:.0%}.".format(*saturation))
