"""
Do my gradients explode?
========================

A rectified RNN whose recurrent kernel doubles the length of every vector. Growth alone is no fault; a
step of the optimizer that throws the weights away is.
"""

import torch
from _recall import LOSS, Reader, task

import throughtime as tt

torch.manual_seed(0)
model = Reader(torch.nn.RNN(1, 32, nonlinearity="relu", batch_first=True))
torch.nn.init.orthogonal_(model.rnn.weight_hh_l0, gain=2.0)
x, y = task()
optimizer = torch.optim.SGD(model.parameters(), 0.01)
found = tt.diagnose(model, x, y, loss=LOSS, optimizer=optimizer)
picture = tt.plots.lag_profile(tt.capture(model, x, y, loss=LOSS))

growth = next(each for each in found.why if each.name == "growth")
assert found.verdict == "unstable"
print(f"They do: the gradient grows {growth.value:,.0f}-fold, and the verdict is {found.verdict}.")
