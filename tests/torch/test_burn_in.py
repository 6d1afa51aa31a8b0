"""Loops whose first steps run without gradients, as the burn-in of R2D2: training does not see them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tests.torch.comparison import difference
from tests.torch.rows import normal, seeded
from tests.torch.test_recurrences import LeakyRNN
from torch import nn

import throughtime as tt

B, T, M, N, BURNT = 3, 7, 2, 4, 3
X, Y = normal(B, T, M), normal(B, T - BURNT, 1, seed=7)
MSE = nn.MSELoss()


class Stepped(nn.Module):
    """A cell in a loop."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell, self.head = cell, nn.Linear(N, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        zeros, outputs = x.new_zeros(len(x), N), []
        state: Any = (zeros, zeros) if isinstance(self.cell, nn.LSTMCell) else zeros
        for step, now in enumerate(x.unbind(1)):
            with torch.set_grad_enabled(step >= BURNT):
                state = self.cell(now, state)
            if step >= BURNT:
                outputs.append(self.head(state[0] if isinstance(state, tuple) else state))
        return torch.stack(outputs, 1)


class InTwoCalls(Stepped):
    """A layer that is called on the first steps, and with its states on the others."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            _, state = self.cell(x[:, :BURNT])
        return self.head(self.cell(x[:, BURNT:], state)[0])


MODELS: dict[str, Callable[[], nn.Module]] = {
    "leaky": lambda: Stepped(LeakyRNN()),
    "gru_cell": lambda: Stepped(nn.GRUCell(M, N)),
    "lstm_cell": lambda: Stepped(nn.LSTMCell(M, N)),
    "gru": lambda: InTwoCalls(nn.GRU(M, N, batch_first=True)),
    "lstm_of_two": lambda: InTwoCalls(nn.LSTM(M, N, num_layers=2, batch_first=True)),
}


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_those_of_training(name: str) -> None:
    model = seeded(MODELS[name]())
    leaves = tt.capture(model, X, Y, loss=MSE).leaves
    MSE(model(X), Y).backward()
    names = {"kernel": "weight_ih", "recurrent_kernel": "weight_hh"} if name != "leaky" else {}
    if name == "leaky":
        names = {"enter_weight": "enter.weight", "again_weight": "again.weight"}
    for layer, leaf in enumerate(leaves):
        assert leaf.sizes["time"] == T
        assert leaf.attrs["trainable"]
        assert not leaf["hidden_gradient"][:, :BURNT].any()
        assert leaf["hidden_gradient"][:, BURNT:].any("unit").all()
        assert float(leaf["certificate_time"].max()) <= 1e-12
        for ours, theirs in names.items():
            suffix = f"_l{layer}" if isinstance(model, InTwoCalls) else ""
            wanted = model.cell.get_parameter(f"{theirs}{suffix}").grad.numpy()
            found = leaf[f"{ours}_gradient"].values
            found = found if found.shape == wanted.shape else in_torchs_order(leaf, ours).T
            assert difference(found, wanted) <= 1e-12, ours


def in_torchs_order(leaf: Any, name: str) -> np.ndarray:
    gates = {"lstm": ["input", "forget", "candidate", "output"], "gru": ["reset", "update", "candidate"]}
    found = leaf[f"{name}_gradient"].sel(gate=gates[leaf.attrs["kind"]]).values
    return found.reshape(len(found), -1)
