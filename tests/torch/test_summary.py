"""What is told of a module without running it, held against torch's own parameters and a capture."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import throughtime as tt


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lower = nn.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2, batch_first=True)
        self.upper = nn.GRU(4, 5, batch_first=True)
        self.cell = nn.RNNCell(5, 2, nonlinearity="relu")
        self.head = nn.Linear(2, 1)

    def forward(self, x):
        state = None
        for step in self.upper(self.lower(x)[0])[0].unbind(1):
            state = self.cell(step, state)
        return self.head(state)


def test_tells_what_torch_counts() -> None:
    model = Model()
    told = tt.summary(model, layers="all")
    assert told.parameters == sum(weight.numel() for weight in model.parameters())
    assert {layer.path: layer.kind for layer in told.layers} == {
        "lower/0": "LSTM",
        "lower/1": "LSTM",
        "upper": "GRU",
        "cell": "SimpleRNN",
        "head": "Linear",
    }
    assert "relu" in str(told)
    assert "adds two biases" in str(told)
    assert "two biases: its reset gate" in str(told)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
def test_weights_are_those_of_a_capture() -> None:
    model = Model()
    tree = tt.capture(model, torch.ones(2, 4, 3))
    for path in ("lower/0", "lower/1", "upper", "cell"):
        captured, described = tree[path].to_dataset(), tt.weights(model, path)
        for name in described.data_vars:
            assert described[name].identical(captured[name]), (path, name)


def test_ambiguous_layers_are_listed() -> None:
    with pytest.raises(tt.AmbiguousLayerError, match="lower/0, lower/1, upper, cell"):
        tt.weights(Model())
