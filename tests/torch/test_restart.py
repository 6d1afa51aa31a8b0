"""Total derivatives by doing it: stop at a step, change the state there, run on, look at the loss.

`hidden_gradient` and `cell_gradient` must predict what a small change of (h_t, c_t) does to the loss; the
derivative is taken by an eighth-order stencil in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import throughtime as tt

B, T, M, N = 3, 6, 2, 4
STEP = 3
STENCIL = {1: 4 / 5, 2: -1 / 5, 3: 4 / 105, 4: -1 / 280}


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Reader(nn.Module):
    """A layer whose every output and final state count in the loss."""

    def __init__(self, make: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn = make(M, N, batch_first=True).double()

    def forward(self, x: torch.Tensor) -> Any:
        return self.rnn(x)


def flat(result: Any) -> list[torch.Tensor]:
    output, states = result
    return [output, *(states if isinstance(states, tuple) else (states,))]


def loss(result: Any, y: torch.Tensor) -> torch.Tensor:
    output, *states = flat(result)
    ends = sum((state[0].sin().sum(-1) for state in states), torch.zeros(()))
    return ((output - y) ** 2).mean((1, 2)) + ends


def derivative(function: Callable[[float], torch.Tensor], h: float = 0.02) -> np.ndarray:
    """Derivative at 0 of one number per sample."""
    return sum(
        (factor * (function(k * h) - function(-k * h)) / h for k, factor in STENCIL.items()), torch.zeros(())
    ).numpy()


KINDS = {
    "rnn_tanh": nn.RNN,
    "gru": nn.GRU,
    "lstm": nn.LSTM,
    "lstm_projected": lambda *a, **k: nn.LSTM(*a, **k, proj_size=2),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
@pytest.mark.parametrize("changed", ["hidden", "cell"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_state_changes_the_loss_as_its_total_gradient_says(kind: str, changed: str) -> None:
    if changed == "cell" and not kind.startswith("lstm"):
        changed = "hidden"
    model = Reader(KINDS[kind])
    x = normal(B, T, M, seed=1)
    with torch.no_grad():
        y = torch.zeros_like(model(x)[0])
        before = model.rnn(x[:, :STEP])
        h, *cell = (state[0] for state in flat(before)[1:])
        width = (cell[0] if changed == "cell" else h).shape[-1]
        direction = normal(B, width, seed=2)

        def at(size: float) -> torch.Tensor:
            state = {"hidden": h, "cell": cell[0] if cell else None}
            state[changed] = state[changed] + size * direction
            if changed == "cell":  # h_t follows c_t: o · tanh(c), with the output gate of step t
                state["hidden"] = follow(model.rnn, x, state["cell"])
            given = tuple(each[None] for each in state.values() if each is not None)
            rest, ends = model.rnn(x[:, STEP:], given if len(given) > 1 else given[0])
            steps = torch.cat([before[0][:, : STEP - 1], state["hidden"][:, None], rest], 1)
            return loss((steps, ends), y)

        expected = derivative(at)
    tree = tt.capture(model, x, y, loss=loss)
    gradient = tree["rnn"][f"{changed}_gradient"].isel(time=STEP - 1)
    found = (gradient.values * direction.numpy()).sum(-1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * np.abs(expected).max())


def follow(rnn: Any, x: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
    """h of the step before STEP for another c: by the equations of torch's documentation."""
    before = flat(rnn(x[:, : STEP - 1]))[1][0]
    z = x[:, STEP - 1] @ rnn.weight_ih_l0.T + before @ rnn.weight_hh_l0.T + rnn.bias_ih_l0 + rnn.bias_hh_l0
    h = z.chunk(4, -1)[3].sigmoid() * cell.tanh()
    return h @ rnn.weight_hr_l0.T if rnn.proj_size else h
