"""`capture` takes labels of its axes and, on request, the loss of each sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import throughtime as tt


class Reader(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gru, self.head = torch.nn.GRU(2, 3, batch_first=True), torch.nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.gru(x)[0][:, -1])


X, Y = torch.randn(4, 5, 2, generator=torch.Generator().manual_seed(1)), torch.zeros(4, 1)
LABELS = {"time": list("abcde"), "features": ["u", "v"], "samples": [7, 7, 8, 9]}


def test_labels_and_losses_are_coordinates() -> None:
    model = Reader()
    tree = tt.capture(model, X, Y, loss=torch.nn.MSELoss(), quantities=["all", "sample_loss"], **LABELS)
    leaf = tree["gru"].to_dataset()
    assert leaf["time_label"].values.tolist() == LABELS["time"]
    assert leaf["feature_label"].values.tolist() == LABELS["features"]
    assert leaf["sample_label"].values.tolist() == LABELS["samples"]
    with torch.no_grad():
        alone = [
            torch.nn.functional.mse_loss(model(x[None]), y[None]).item() for x, y in zip(X, Y, strict=True)
        ]
    np.testing.assert_allclose(leaf["sample_loss"].values, alone, rtol=1e-5)
    plain = tt.capture(model, X, Y, loss=torch.nn.MSELoss())["gru"].to_dataset()
    assert set(plain.data_vars) == set(leaf.data_vars)
    assert not {"sample_loss", "time_label"} & set(plain.coords)


def test_labels_of_another_length_are_refused() -> None:
    with pytest.raises(tt.SchemaError, match="3 labels were passed, and the layers have 5"):
        tt.capture(Reader(), X, Y, loss=torch.nn.MSELoss(), time=["a", "b", "c"])
