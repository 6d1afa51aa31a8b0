"""Trains with Lightning in two processes, each on every second sample, and records; run as a script."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import throughtime as tt

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what it says of itself when it is imported
    from lightning import pytorch as pl

LIMIT = 2.0
X = torch.randn(16, 6, 3, generator=torch.Generator().manual_seed(0))
Y = X.sum((1, 2))[:, None]
MSE = nn.MSELoss()


class Reader(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.head = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][:, -1])

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        return MSE(self(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.05)


def main(path: str) -> None:
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    monitor = tt.Monitor(path, (X[rank:8:2], Y[rank:8:2]), every=1, loss=MSE)
    pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        strategy="ddp",
        devices=2,
        use_distributed_sampler=False,
        gradient_clip_val=LIMIT,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[monitor.lightning()],
    ).fit(Reader(), DataLoader(TensorDataset(X[rank::2], Y[rank::2]), batch_size=4))


if __name__ == "__main__":
    main(sys.argv[1])
