"""Recurrences that nobody registered: modules that a model calls again with what they returned.

The oracle adds a zero to each state where the module makes it, and differentiates with respect to those.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tests.torch.comparison import difference
from tests.torch.rows import normal, seeded
from torch import nn

import throughtime as tt

B, T, M, N, K = 3, 6, 2, 4, 1
MSE = nn.MSELoss()
X, Y = normal(B, T, M), normal(B, T, K, seed=7)


class Noting(nn.Module):
    """A module whose states a test can reach as they are made."""

    def note(self, name: str, value: torch.Tensor) -> torch.Tensor:
        return value


class LeakyRNN(Noting):
    """A continuous-time RNN in Euler steps."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.again = nn.Linear(M, N), nn.Linear(N, N)

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        return self.note("hidden", h + 0.3 * (torch.tanh(self.enter(x) + self.again(h)) - h))


class MinGRU(Noting):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.candidate = nn.Linear(M, N), nn.Linear(M, N)

    def forward(self, x: torch.Tensor, h: torch.Tensor | None = None) -> torch.Tensor:
        z = self.gate(x).sigmoid()
        kept = 0 if h is None else (1 - z) * h
        return self.note("hidden", kept + z * self.candidate(x))


class WrittenLSTM(Noting):
    """An LSTM written out, with the weights of torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.again = nn.Linear(M, 4 * N), nn.Linear(N, 4 * N)

    def forward(self, x: torch.Tensor, state: Any) -> Any:
        h, c = state
        i, f, g, o = (self.enter(x) + self.again(h)).chunk(4, -1)
        c = self.note("cell", f.sigmoid() * c + i.sigmoid() * g.tanh())
        return self.note("hidden", o.sigmoid() * c.tanh()), c


class SLSTM(Noting):
    """The scalar LSTM of Beck et al. 2024, with its normalizer and its stabilizer."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.again = nn.Linear(M, 4 * N), nn.Linear(N, 4 * N)

    def forward(self, x: torch.Tensor, h: Any, c: Any, n: Any, m: Any) -> Any:
        i, f, z, o = (self.enter(x) + self.again(h)).chunk(4, -1)
        log_f = nn.functional.logsigmoid(f)
        highest = self.note("state_3", torch.maximum(log_f + m, i))
        keeps, enters = (log_f + m - highest).exp(), (i - highest).exp()
        c = self.note("cell", keeps * c + enters * z.tanh())
        n = self.note("state_2", keeps * n + enters)
        h = self.note("hidden", o.sigmoid() * c / n)
        return h, c, n, highest


class Nested(Noting):
    """Two cells one above the other, each a module of a user's."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = LeakyRNN(), MinGRU()
        self.high.gate, self.high.candidate = nn.Linear(N, N), nn.Linear(N, N)

    def forward(self, x: torch.Tensor, states: list[torch.Tensor]) -> Any:
        low = self.note("hidden", self.low(x, states[0]))
        return [low, self.note("cell", self.high(low, states[1]))]


class ByKeyword(LeakyRNN):
    def forward(self, x: torch.Tensor, *, mask: Any = None, memory: Any = None) -> Any:  # type: ignore[override]
        return {"memory": super().forward(x, memory["h"])}


class Loop(nn.Module):
    """Calls a cell for each step; `between` is what happens to the state before the next call."""

    def __init__(self, cell: nn.Module, width: int = N) -> None:
        super().__init__()
        self.cell, self.head = cell, nn.Linear(width, K)

    def between(self, state: torch.Tensor, step: int) -> torch.Tensor:
        return state

    def call(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        state = self.cell(x, state)
        return state, state

    def start(self, x: torch.Tensor) -> Any:
        return x.new_zeros(len(x), N)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state, outputs = self.start(x), []
        for step, entering in enumerate(x.unbind(1)):
            output, state = self.call(entering, state)
            outputs.append(self.head(output))
            state = _each(lambda one, step=step: self.between(one, step), state)
        return torch.stack(outputs, 1)


def _each(function: Callable[..., Any], state: Any) -> Any:
    if isinstance(state, torch.Tensor):
        return function(state)
    if isinstance(state, dict):
        return {name: function(one) for name, one in state.items()}
    return type(state)(function(one) for one in state)


class WithoutStart(Loop):
    def start(self, x: torch.Tensor) -> Any:
        return None


class OfPairs(Loop):
    def start(self, x: torch.Tensor) -> Any:
        return x.new_zeros(len(x), N), x.new_zeros(len(x), N)

    def call(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        state = self.cell(x, state)
        return state[0], state


class OfLists(OfPairs):
    def call(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        state = self.cell(x, list(state))
        return state[1], state


class OfFour(Loop):
    def start(self, x: torch.Tensor) -> Any:
        zeros = x.new_zeros(len(x), N)
        return zeros, zeros, zeros, zeros - 10

    def call(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        state = self.cell(x, *state)
        return state[0], state


class OfKeywords(Loop):
    def call(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        state = self.cell(x, memory={"h": state})["memory"]
        return state, state


class Masked(Loop):
    """Samples that have finished keep their state."""

    def call(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        running = x[:, :1] > -0.5
        state = torch.where(running, self.cell(x, state), state)
        return state, state


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "leaky": (lambda: Loop(LeakyRNN()), ("hidden",)),
    "min_gru": (lambda: WithoutStart(MinGRU()), ("hidden",)),
    "written_lstm": (lambda: OfPairs(WrittenLSTM()), ("hidden", "cell")),
    "s_lstm": (lambda: OfFour(SLSTM()), ("hidden", "cell", "state_2", "state_3")),
    "nested": (lambda: OfLists(Nested()), ("hidden", "cell")),
    "keywords": (lambda: OfKeywords(ByKeyword()), ("hidden",)),
    "early_exit": (lambda: Masked(LeakyRNN()), ("hidden",)),
}


def expected(model: nn.Module, states: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Values of the states, and their gradients of each sample's own loss."""
    values: dict[str, list[torch.Tensor]] = {name: [] for name in states}
    zeros: dict[str, list[torch.Tensor]] = {name: [] for name in states}

    def note(name: str, value: torch.Tensor) -> torch.Tensor:
        values[name].append(value)
        zeros[name].append(torch.zeros_like(value, requires_grad=True))
        return value + zeros[name][-1]

    model.cell.note = note
    try:
        loss = MSE(model(X), Y) * len(X)
    finally:
        del model.cell.note
    found = {name: torch.stack(each, 1).detach().numpy() for name, each in values.items()}
    for name in states:
        gradients = torch.autograd.grad(loss, zeros[name], retain_graph=True, allow_unused=True)
        pairs = zip(gradients, zeros[name], strict=True)
        each = [torch.zeros_like(zero) if one is None else one for one, zero in pairs]
        found[f"{name}_gradient"] = torch.stack(each, 1).numpy()
    return found


def capture(model: nn.Module, x: Any = X, y: Any = Y, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return tt.capture(model, x, y, loss=MSE, **options)


@pytest.mark.parametrize("name", CASES)
class TestAnyModuleThatIsCalledAgainWithWhatItReturned:
    def test_its_states_and_their_gradients_are_those_of_autograd(self, name: str) -> None:
        build, states = CASES[name]
        model = seeded(build())
        leaf = capture(model)["cell"]
        assert leaf.attrs["states"] == ", ".join(states)
        found = expected(model, states)
        largest = np.abs(found["hidden_gradient"]).max()  # a stabilizer's is 0 but for rounding
        for variable, values in found.items():
            error = np.abs(leaf[variable].values - values).max()
            assert error <= 1e-12 * max(largest, np.abs(values).max()), variable

    def test_the_model_has_one_recurrent_layer_with_a_certificate(self, name: str) -> None:
        tree = capture(seeded(CASES[name][0]()))
        assert [leaf.path for leaf in tree.leaves] == ["/cell"]
        assert float(tree["cell"]["certificate_time"]) <= 1e-12

    def test_weights_and_inputs_have_the_gradients_of_training(self, name: str) -> None:
        model = seeded(CASES[name][0]())
        leaf = capture(model)["cell"]
        MSE(model(X), Y).backward()
        for weight, parameter in model.cell.named_parameters():
            found = leaf[f"{weight.replace('.', '_')}_gradient"]
            assert difference(found, parameter.grad.numpy()) <= 1e-12, weight
        x = X.clone().requires_grad_()
        (of_input,) = torch.autograd.grad(MSE(model(x), Y) * B, x)
        assert difference(leaf["input_gradient"], of_input.numpy()) <= 1e-12
        assert difference(leaf["input"], X.numpy()) == 0.0
