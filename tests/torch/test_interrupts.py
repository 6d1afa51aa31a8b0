"""Ctrl-C at any line of a capture leaves a torch module as it was: bytes, attributes, training, next capture.

`benchmarks/faults/interrupts.py` interrupts more often.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from tests.interrupts import chosen, lines_of
from torch import nn

import throughtime as tt

B, T, M, N = 3, 5, 2, 3
MSE = nn.MSELoss()


class Stacked(nn.Module):
    """Two kinds of layers, batch statistics, dropout, and a cell in a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(M)
        self.lower = nn.LSTM(M, N, num_layers=2, dropout=0.3, batch_first=True, bidirectional=True)
        self.upper = nn.GRU(2 * N, N, batch_first=True)
        self.cell = nn.RNNCell(N, N)
        self.head = nn.Linear(N, 1)
        self.seen: list[Any] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        sequence = self.upper(self.lower(x)[0])[0]
        self.seen.append(len(sequence))
        h = None
        for step in sequence.unbind(1):
            h = self.cell(step, h)
        return self.head(h)


class Projected(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(M, N, batch_first=True, proj_size=2), nn.Linear(2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][:, -1])


def state(model: nn.Module) -> dict[str, Any]:
    found: dict[str, Any] = {
        "random": (torch.get_rng_state().numpy().tobytes(), repr(np.random.get_state())),
        "settings": (torch.is_grad_enabled(), torch.is_autocast_cache_enabled()),
        "modes": torch._C._len_torch_function_stack(),
    }
    for name, module in model.named_modules():
        found[f"{name} attributes"] = {key: id(value) for key, value in vars(module).items()}
        for key, value in vars(module).items():
            if isinstance(value, dict):
                found[f"{name} {key}"] = [(inner, id(item)) for inner, item in value.items()]
            if isinstance(value, list):
                found[f"{name} {key}"] = list(value)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        found[name] = tensor.detach().numpy().tobytes(), id(tensor), tensor.requires_grad, tensor.grad is None
    return found


def trained(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> list[np.ndarray]:
    """What a step of training makes of a copy."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        MSE(model(x), y).backward()
    optimizer.step()
    return [parameter.detach().numpy() for parameter in model.parameters()]


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("kind", [Stacked, Projected])
@pytest.mark.parametrize("training", [False, True])
def test_an_interrupt_at_any_line_leaves_no_trace(kind: type[nn.Module], training: bool) -> None:
    torch.manual_seed(0)
    model, x, y = kind(), torch.randn(B, T, M), torch.randn(B, 1)

    def capture() -> Any:
        return tt.capture(model, x, y, loss=MSE, training=training)

    tree, before, after = capture(), state(model), trained(model, x, y)
    count = lines_of(capture)
    assert count > 1000
    for at in chosen(count, seed=training):
        lines_of(capture, at)
        assert state(model) == before, at
        for one, other in zip(trained(model, x, y), after, strict=True):
            np.testing.assert_array_equal(one, other)
        assert capture().identical(tree), at
