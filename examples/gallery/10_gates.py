"""
Which gate keeps the memory?
============================

An LSTM has learned to name the first of 40 values at the end. Its gates show how: which are open, which
are shut, and where gradient arrives.
"""

import torch
from _recall import LOSS, STEPS, Reader, start_chrono, task, train

import throughtime as tt

torch.manual_seed(0)
model = Reader(start_chrono(torch.nn.LSTM(1, 32, batch_first=True), STEPS - 1))
train(model, task(1024), 120)
x, y = task(seed=1)
layer = tt.capture(model, x, y, loss=LOSS)["rnn"]
picture = tt.plots.gates(layer)

opened = (layer["gate_activation"] > 0.9).mean(["sample", "time", "unit"])
shares = {gate: f"{float(opened.sel(gate=gate)):.0%}" for gate in ("input", "forget", "output")}
assert opened.sel(gate="forget") == opened.max() > 0.3
print(f"The forget gate. Shares above 0.9: {shares}.")
