"""
How often does clipping act?
============================

A rectified RNN is trained with its gradient clipped to a norm of 1. The loop passes the norm before
clipping to the monitor, and the run keeps the ratio.
"""

import tempfile

import torch
from _recall import LOSS, Reader, task

import throughtime as tt

torch.manual_seed(0)
x, y = task(steps=20)
model = Reader(torch.nn.RNN(1, 32, nonlinearity="relu", batch_first=True))
torch.nn.init.orthogonal_(model.rnn.weight_hh_l0, gain=1.1)
optimizer = torch.optim.Adam(model.parameters(), 0.003)
monitor = tt.Monitor(f"{tempfile.mkdtemp()}/run.zarr", batch=(x, y), every=5, vanishing_lag=None)
with monitor.watch(model, loss=LOSS, optimizer=optimizer):
    for _ in range(100):
        optimizer.zero_grad()
        LOSS(model(x), y).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        monitor.step(gradient_norm=norm, clip_norm=1.0)
run = tt.open_run(monitor.path)
picture = tt.plots.training(run)

share = float(run["clipped_share"].mean())
assert 0.05 < share < 0.95
print(f"In {share:.0%} of the steps.")
