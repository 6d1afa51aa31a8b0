"""
Do two units do the same?
=========================

Unit 5 of this GRU starts with the weights of unit 2. Equal units receive equal gradients, and so they
stay equal: a symmetry that random initialisation is there to break.
"""

import torch
from _recall import LOSS, Reader, task, train

import throughtime as tt

torch.manual_seed(0)
model = Reader(torch.nn.GRU(4, 12, batch_first=True))
with torch.no_grad():
    for weights in model.rnn.parameters():
        weights[5::12] = weights[2::12]
    model.rnn.weight_hh_l0[:, 5] = model.rnn.weight_hh_l0[:, 2]
    model.head.weight[:, 5] = model.head.weight[:, 2]
train(model, task(256, features=4), 60)
x, y = task(features=4, seed=1)
correlation = tt.diagnostics.unit_correlation(tt.capture(model, x, y, loss=LOSS)["rnn"], variable="hidden")
picture = tt.plots.heatmap(correlation, rows="unit", columns="unit_from", title="Correlation of states")

pair = float(correlation[2, 5])
others = abs(correlation - correlation.where(correlation > 0.9999, 0)).max()
assert pair > 0.9999
assert others < 0.9999
print(f"Units 2 and 5 do, after training as well: their correlation is {pair:.4f}.")
