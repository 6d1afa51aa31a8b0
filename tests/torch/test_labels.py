"""`capture` takes labels of its axes and, on request, the loss of each sample."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

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


def masked_loss(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.where(y.isnan(), 0.0, (output - y.nan_to_num()) ** 2).mean()


@pytest.mark.parametrize("is_masked", [False, True])
def test_a_label_that_the_loss_masks_does_not_hide_a_broken_network(is_masked: bool) -> None:
    model, y = Reader(), Y.clone()
    y[2] = float("nan")
    if is_masked:
        with torch.no_grad():
            model.gru.weight_hh_l0[0, 0] = float("nan")
    with pytest.warns(tt.ThroughTimeWarning, match="samples"):
        found = tt.diagnose(model, X, y, loss=masked_loss if is_masked else torch.nn.MSELoss())
    words = "recurrent_kernel of gru" if is_masked else r"nan in y\[2, 0\]"
    assert found.verdict == ("unstable" if is_masked else "cannot_say")
    assert re.search(words, found.sentences[0])


class Packed(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gru, self.head = torch.nn.GRU(2, 3, batch_first=True), torch.nn.Linear(3, 1)

    def forward(self, x: PackedSequence) -> torch.Tensor:
        return self.head(self.gru(x)[0].data)


@pytest.mark.parametrize("is_finite", [True, False])
def test_labels_may_be_a_packed_sequence(is_finite: bool) -> None:
    y = torch.zeros(4, 5, 1)
    if not is_finite:
        y[0, 1] = float("nan")  # of the second step, after one label of each of the four samples
    x, labels = (pack_padded_sequence(each, torch.full((4,), 5), batch_first=True) for each in (X, y))
    with pytest.warns(tt.ThroughTimeWarning, match="samples"):
        found = tt.diagnose(Packed(), x, labels, loss=lambda output, y: ((output - y.data) ** 2).mean())
    assert ("nan in y[4, 0]" in found.sentences[0]) is not is_finite
