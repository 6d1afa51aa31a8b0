"""A small torch model and the plain loop that trains it, for tests of what a monitor makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import xarray as xr
from torch import nn

import throughtime as tt

X = torch.randn(24, 12, 3, generator=torch.Generator().manual_seed(0))
Y = X.sum((1, 2))[:, None]
MSE = nn.MSELoss()
BATCH = (X[:8], Y[:8])
WAY: dict[str, Any] = {}  # options of every monitor, as a test file sets them


class Reader(nn.Module):
    def __init__(self, kind: Any = nn.LSTM, **options: Any) -> None:
        super().__init__()
        self.rnn = kind(3, 5, batch_first=True, **options)
        self.head = nn.Linear(5 * (1 + options.get("bidirectional", False)), 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][:, -1])


def made(*arguments: Any, **options: Any) -> Reader:
    torch.manual_seed(0)
    return Reader(*arguments, **options)


def train(model: nn.Module, steps: int, monitor: tt.Monitor | None = None, spoiled_at: int = 0) -> None:
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        MSE(model(X), Y).backward()
        optimizer.step()
        if step == spoiled_at:
            with torch.no_grad():
                model.rnn.weight_hh_l0[6, 0] = float("nan")  # of the forget gate
        if monitor is not None:
            monitor.step()
            if monitor.should_stop:
                break


def watched(path: Path, model: nn.Module, steps: int, **options: Any) -> tuple[xr.DataTree, tt.Monitor]:
    monitor = tt.Monitor(
        path / "run.zarr", batch=BATCH, loss=MSE, **{"vanishing_lag": None, **WAY, **options}
    )
    with monitor.watch(model):
        train(model, steps, monitor)
    return tt.open_run(path / "run.zarr"), monitor
