"""States and inputs that a loop overwrites, hooks on states, and calls that raise."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import throughtime as tt

SAMPLES, STEPS, INPUTS, UNITS = 3, 6, 2, 4
RESET = 3  # of sample 0


class Leaky(nn.Module):
    """A custom cell."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.kernel = nn.Linear(inputs + units, units)

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        return 0.7 * h + 0.3 * torch.sin(self.kernel(torch.cat([x, h], -1)))


class Rollout(nn.Module):
    """A loop that resets its memory by hand."""

    def __init__(self, make: Callable[..., nn.Module], write: Callable[[torch.Tensor], None] | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.write = make(INPUTS, UNITS), write

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        zeros = x.new_zeros(SAMPLES, UNITS)
        states = (zeros, zeros.clone()) if isinstance(self.cell, nn.LSTMCell) else (zeros,)
        for step in range(STEPS):
            if step == RESET and self.write:
                for state in states:
                    self.write(state)
            found = self.cell(x[:, step], states if len(states) > 1 else states[0])
            states = found if len(states) > 1 else (found,)
        return states[0]


def of_data(state: torch.Tensor) -> None:
    state.data[0] = 0


def without_gradient(state: torch.Tensor) -> None:
    with torch.no_grad():
        state[0] = 0


def squared(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (output - y).square().sum()


# Not of an RNNCell, whose own gradient reads the overwritten state.
@pytest.mark.parametrize("write", [of_data, without_gradient])
@pytest.mark.parametrize("make", [nn.GRUCell, nn.LSTMCell, Leaky])
def test_what_a_loop_writes_on_a_state_is_read_and_its_gradient_crosses(
    make: Callable[..., nn.Module], write: Callable[[torch.Tensor], None]
) -> None:
    x = inputs().requires_grad_()
    y, model = torch.zeros(SAMPLES, UNITS, dtype=torch.float64), Rollout(make, write).double()
    true = squared(model(x), y)
    true.backward()
    cell = tt.capture(model, x.detach(), y, loss=squared)["cell"]
    assert cell["loss"].item() == pytest.approx(true.item(), rel=1e-14)
    np.testing.assert_allclose(cell["input_gradient"], x.grad, rtol=1e-10, atol=1e-14)
    leaks = tt.diagnostics.boundary_leak(cell, np.arange(STEPS) == RESET * np.ones((SAMPLES, 1)))
    assert (0, RESET) in {(leak.sample, leak.time) for leak in leaks}
    assert not cell["reset"].values.any()


class Loop(nn.Module):
    """A loop whose `step` calls the cell."""

    def __init__(self, make: Callable[..., nn.Module], step: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.step = make(INPUTS, UNITS), step

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, self.buffer = x.new_zeros(SAMPLES, UNITS), torch.zeros_like(x[:, 0])
        for step in range(STEPS):
            h = self.step(self, x[:, step], h)
        return h


def with_hook(loop: Loop, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    h = loop.cell(x, h)
    if h.requires_grad:
        h.register_hook(lambda gradient: 0.5 * gradient)
    return h


def from_a_buffer(loop: Loop, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = loop.cell(loop.buffer.copy_(x), h)
    return made


def after_an_error(loop: Loop, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    with suppress(RuntimeError):
        loop.cell(x[:, :1], h)
    made: torch.Tensor = loop.cell(x, h)
    return made


def inputs() -> torch.Tensor:
    return torch.randn(
        SAMPLES, STEPS, INPUTS, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )


@pytest.mark.parametrize("step", [with_hook, after_an_error])
@pytest.mark.parametrize("make", [nn.GRUCell, nn.RNNCell])
def test_hooks_of_states_are_called_and_errors_that_the_loop_catches_add_no_step(
    make: Callable[..., nn.Module], step: Callable[..., torch.Tensor]
) -> None:
    x, y, model = inputs().requires_grad_(), torch.zeros(SAMPLES, UNITS).double(), Loop(make, step).double()
    squared(model(x), y).backward()
    cell = tt.capture(model, x.detach(), y, loss=squared)["cell"]
    np.testing.assert_allclose(cell["input_gradient"], x.grad, rtol=1e-10, atol=1e-14)
    assert cell.sizes["time"] == STEPS


class Hooked(nn.Module):
    """An LSTMCell in a loop with a hook on one of its states."""

    def __init__(self, place: int) -> None:
        super().__init__()
        self.place, self.cell = place, nn.LSTMCell(INPUTS, UNITS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = (x.new_zeros(SAMPLES, UNITS), x.new_zeros(SAMPLES, UNITS))
        for step in range(STEPS):
            state = self.cell(x[:, step], state)
            if state[self.place].requires_grad:
                state[self.place].register_hook(lambda gradient: 0.5 * gradient)
        return state[0]


@pytest.mark.parametrize("place", [0, 1])
def test_a_hook_on_either_state_of_an_lstm_halves_what_comes_back(place: int) -> None:
    torch.manual_seed(0)
    x, y, model = inputs(), torch.zeros(SAMPLES, UNITS).double(), Hooked(place).double()
    cell = tt.capture(model, x, y, loss=squared)["cell"]
    assert float(cell["certificate_time"]) < 1e-12
    assert float(cell["certificate_weights"]) < 1e-12
    np.testing.assert_allclose(cell["output_gradient"][:, :-1], 0, atol=1e-14)
    if place == 1:  # dL/dc by hand: half of what the next step hands back, and the way through h
        gates, c = cell["gate_activation"], np.tanh(cell["cell"].values)
        own = cell["hidden_gradient"] * gates.sel(gate="output") * (1 - c**2)
        later = 0.5 * (cell["cell_gradient"] * gates.sel(gate="forget")).values
        later = np.concatenate([later[:, 1:], np.zeros_like(later[:, :1])], 1)
        np.testing.assert_allclose(cell["cell_gradient"], own + later, rtol=1e-10, atol=1e-15)


class Clip(torch.autograd.Function):
    """Clips what comes back."""

    @staticmethod
    def forward(_: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(_: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient.clamp(-0.01, 0.01)


def hook_that_clips(h: torch.Tensor) -> torch.Tensor:
    if h.requires_grad:
        h.register_hook(lambda gradient: gradient.clamp(-0.01, 0.01))
    return h


class Clipped(nn.Module):
    """A module in a loop, or a layer, whose gradients are clipped on their way back."""

    def __init__(self, make: Callable[..., nn.Module], clip: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.cell, self.head, self.clip = make(INPUTS, UNITS), nn.Linear(UNITS, 1), clip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if isinstance(self.cell, nn.LSTM):
            return self.head(self.clip(self.cell(x)[0])[:, -1])
        h = x.new_zeros(SAMPLES, UNITS)
        for now in x.unbind(1):
            h = self.clip(self.cell(now, h))
        return self.head(h)


@pytest.mark.parametrize("clip", [hook_that_clips, Clip.apply], ids=["hook", "function"])
@pytest.mark.parametrize("make", [nn.GRUCell, Leaky, partial(nn.LSTM, batch_first=True)])
def test_gradients_are_clipped_as_in_training(
    make: Callable[..., nn.Module], clip: Callable[..., torch.Tensor]
) -> None:
    torch.manual_seed(0)
    x, y, model = inputs(), torch.zeros(SAMPLES, 1).double(), Clipped(make, clip).double()
    (cell,) = (one for one in tt.capture(model, x, y, loss=nn.MSELoss()).leaves if "hidden" in one)
    nn.MSELoss()(model(x), y).backward()
    for name, weight in model.cell.named_parameters():
        ours = {"weight_hh": "recurrent_kernel", "weight_ih": "kernel"}.get(name.removesuffix("_l0"))
        ours = name.replace(".", "_") if isinstance(model.cell, Leaky) else ours
        if ours is not None:  # gates stand in another order
            found = np.sort(cell[f"{ours}_gradient"].values, axis=None)
            wanted = np.sort(weight.grad.numpy(), axis=None)
            np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-15)
    assert float(cell["certificate_time"].max()) < 1e-12


@pytest.mark.parametrize("make", [nn.GRUCell, Leaky])
def test_captures_of_a_loop_with_hooks_are_freed(make: Callable[..., nn.Module]) -> None:
    def count() -> int:
        gc.collect()
        return sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())

    torch.manual_seed(0)
    x, y, model = inputs(), torch.zeros(SAMPLES, 1).double(), Clipped(make, hook_that_clips).double()
    counts = []
    for _ in range(4):
        tt.capture(model, x, y, loss=nn.MSELoss())
        counts.append(count())
    assert counts[3] == counts[2] == counts[1]


@pytest.mark.parametrize("make", [nn.GRUCell, Leaky])
def test_a_buffer_that_is_filled_anew_shows_each_input(make: Callable[..., nn.Module]) -> None:
    cell = tt.capture(Loop(make, from_a_buffer).double(), inputs())["cell"]
    np.testing.assert_array_equal(cell["input"], inputs())


def test_resets_alone_come_without_norms_of_gradients() -> None:
    model, y = Loop(nn.GRUCell, after_an_error).double(), torch.zeros(SAMPLES, UNITS).double()
    cell = tt.capture(model, inputs(), y, loss=squared, quantities=["reset"])["cell"]
    assert not {"carried_gradient", "carried_by_state"} & {*cell.data_vars}
