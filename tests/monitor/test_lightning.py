"""A monitor in Lightning's Trainer: steps of the optimizer, and training that stays the same."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import throughtime as tt

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what it says of itself when it is imported
    from lightning import pytorch as pl

X = torch.randn(24, 6, 3, generator=torch.Generator().manual_seed(0))
Y = X.sum((1, 2))[:, None]
MSE = nn.MSELoss()


class Reader(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][:, -1])

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        x, y = batch
        return MSE(self(x), y)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters())


def trained(folder: Path, *callbacks: Any, **options: Any) -> Reader:
    torch.manual_seed(0)
    model = Reader()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of workers, loggers and the machine
        pl.Trainer(
            max_epochs=2,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=list(callbacks),
            **options,
        ).fit(model, DataLoader(TensorDataset(X, Y), batch_size=4))
    return model


@pytest.mark.parametrize(("together", "steps"), [(1, [0, 5, 10, 12]), (2, [0, 5, 6])])
def test_records_optimizer_steps_and_leaves_training_alone(
    tmp_path: Path, together: int, steps: list[int]
) -> None:
    monitor = tt.Monitor(tmp_path / "run.zarr", (X[:8], Y[:8]), every=5, loss=MSE)
    seen = trained(tmp_path, monitor.lightning(), accumulate_grad_batches=together)
    alone = trained(tmp_path, accumulate_grad_batches=together)
    for left, right in zip(seen.parameters(), alone.parameters(), strict=True):
        assert torch.equal(left, right)
    assert tt.open_run(tmp_path / "run.zarr")["rnn"]["step"].values.tolist() == steps


def test_an_alarm_stops_the_trainer(tmp_path: Path) -> None:
    monitor = tt.Monitor(
        tmp_path / "run.zarr",
        (X[:8], Y[:8]),
        every=1,
        loss=lambda output, y: 0 * MSE(output, y),
        stop_on="dead_gradient",
        on_alarm=lambda alarm: None,
    )
    trained(tmp_path, monitor.lightning())
    assert monitor.should_stop
    assert tt.open_run(tmp_path / "run.zarr")["rnn"]["step"].values[-1] < 12
