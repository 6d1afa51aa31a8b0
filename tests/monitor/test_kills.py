"""Training that is killed: what a monitor had recorded is there, whole, and the next process goes on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import throughtime as tt

TRAINING = """
import sys, torch
from torch import nn
import throughtime as tt

class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, 1)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])

torch.manual_seed(0)
x = torch.randn(8, 12, 3)
y, model, mse = x.sum((1, 2))[:, None], Reader(), nn.MSELoss()
optimizer = torch.optim.SGD(model.parameters(), 0.01)
background = sys.argv[2] == "True"
monitor = tt.Monitor(sys.argv[1], (x, y), every=1, loss=mse, mode="continue", background=background)
with monitor.watch(model):
    while True:
        optimizer.zero_grad()
        mse(model(x), y).backward()
        optimizer.step()
        monitor.step()
        print(monitor._step, flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no kill -9 here")
@pytest.mark.parametrize("background", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_killed_training_leaves_a_run_that_is_whole_and_goes_on(tmp_path: Path, background: bool) -> None:
    path, rng, last = tmp_path / "run.zarr", random.Random(0), 0
    for _ in range(int(os.environ.get("THROUGHTIME_KILLS", "2"))):
        arguments = [sys.executable, "-c", TRAINING, str(path), str(background)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as training:
            told = [int(training.stdout.readline()) for _ in range(rng.randint(1, 6))]
            time.sleep(rng.random() * 0.05)
            training.kill()
            told += [int(line) for line in training.stdout.read().splitlines() if line.strip()]
        run = tt.open_run(path)["rnn"].to_dataset().compute()
        steps = run["step"].values.tolist()
        assert steps == list(range(steps[-1] + 1))
        assert steps[-1] >= told[-1] - (1 if background else 0)  # of two under way one is waited for
        assert steps[-1] >= last if background else steps[-1] > last  # the one step may be the one lost
        last = steps[-1]
        assert np.isfinite(run["loss"]).all()
        assert np.isfinite(run["hidden_gradient_norm"]).all()
