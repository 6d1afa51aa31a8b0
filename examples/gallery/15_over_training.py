"""
When does it learn to remember?
===============================

A monitor records an LSTM while it learns to name the first of 20 values: its loss, its memory horizon,
and R(8), the gradient that arrives 8 steps back.
"""

import tempfile

import torch
from _recall import LOSS, Reader, task, train

import throughtime as tt

torch.manual_seed(0)
model = Reader(torch.nn.LSTM(1, 32, batch_first=True))
held_out = task(steps=20, seed=1)
monitor = tt.Monitor(f"{tempfile.mkdtemp()}/run.zarr", batch=held_out, every=20, vanishing_lag=None)
with monitor.watch(model, loss=LOSS):
    train(model, task(1024, steps=20), 300, each=monitor.step)
run = tt.open_run(monitor.path)
picture = tt.plots.training(run)

layer = run["rnn"].to_dataset().load()
reached = layer["lag_ratio"].sel(lag=8) > 0.01
learned = layer["loss"] < 0.5 * layer["loss"][0]
first, then = (int(layer["step"][int(each.argmax("step"))]) for each in (reached, learned))
assert 0 < first < then
print(f"First R(8) passes 1 %, at step {first}; then the loss halves, at step {then}.")
