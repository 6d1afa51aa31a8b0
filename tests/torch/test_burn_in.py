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


class Read(Stepped):
    """The loss reads each step, and the loop changes states outside of the calls: gradients end at these."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, outputs = x.new_zeros(len(x), N), []
        for step, now in enumerate(x.unbind(1)):
            with torch.set_grad_enabled(step >= BURNT):
                new = self.cell(now, h)
            h = 0.9 * torch.where((torch.arange(len(x)) + step > 2)[:, None], new, h)
            outputs.append(self.head(h))
        return torch.stack(outputs, 1)


class ReadInTwoCalls(Stepped):
    """The loss reads both calls, and the states change between them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            before, state = self.cell(x[:, :BURNT])
        state = tuple(0.9 * one for one in state) if isinstance(state, tuple) else 0.9 * state
        return self.head(torch.cat([before, self.cell(x[:, BURNT:], state)[0]], 1))


class Beside(Stepped):
    """The layer is called without gradients on another sequence, whose output the loss reads."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            other = self.cell(x.flip(1))[0]
        return self.head(self.cell(x)[0] + other)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Read(nn.GRUCell(M, N)),
        lambda: ReadInTwoCalls(nn.GRU(M, N, batch_first=True)),
        lambda: ReadInTwoCalls(nn.LSTM(M, N, batch_first=True)),
        lambda: Beside(nn.GRU(M, N, batch_first=True)),
    ],
    ids=["cell", "gru", "lstm", "beside"],
)
def test_calls_without_gradients_add_nothing_where_other_calls_train(make: Callable[[], nn.Module]) -> None:
    model, y = seeded(make()), normal(B, T, 1, seed=7)
    leaves = tt.capture(model, X, y, loss=MSE).leaves
    MSE(model(X), y).backward()
    suffix = "" if isinstance(model, Read) else "_l0"
    for leaf in leaves:
        for ours, theirs in {"kernel": "weight_ih", "recurrent_kernel": "weight_hh"}.items():
            wanted = model.cell.get_parameter(f"{theirs}{suffix}").grad.numpy()
            assert difference(in_torchs_order(leaf, ours).T, wanted) <= 1e-12, ours
        if not leaf.attrs["trainable"]:
            assert not leaf["hidden_gradient"].any()
            assert not leaf["output_gradient"].any()
