"""States that leave as they entered, whose samples are not on the first axis, or that an object holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import throughtime as tt

MSE = nn.MSELoss()
SAMPLES, STEPS, UNITS = 5, 7, 4


class Clockwork(nn.Module):
    """A fast state, and a slow one that changes at every third step, in a dict."""

    def __init__(self, *, in_place: bool) -> None:
        super().__init__()
        self.fast, self.slow = nn.Linear(3 + 2 * UNITS, UNITS), nn.Linear(UNITS, UNITS)
        self.in_place = in_place

    def forward(self, x: torch.Tensor, state: dict[str, torch.Tensor], step: int) -> Any:
        slow = state["slow"]
        fast = torch.tanh(self.fast(torch.cat([x, state["fast"], slow], -1)))
        if step % 3 == 0:
            slow = torch.tanh(self.slow(fast) + slow)
        if not self.in_place:
            return fast, {"fast": fast, "slow": slow}
        state["fast"] = fast
        if step % 3 == 0:
            state["slow"] = slow
        return fast, state


class ClockworkLoop(nn.Module):
    def __init__(self, *, in_place: bool) -> None:
        super().__init__()
        self.cell, self.out = Clockwork(in_place=in_place), nn.Linear(UNITS, 1)

    def forward(self, x: torch.Tensor, seen: list[torch.Tensor] | None = None) -> torch.Tensor:
        state = {name: x.new_zeros(len(x), UNITS) for name in ("fast", "slow")}
        for step in range(x.shape[1]):
            fast, state = self.cell(x[:, step], state, step)
            if seen is not None:  # a tensor of its own for each step
                state["slow"] = state["slow"] * 1
                state["slow"].retain_grad()
                seen.append(state["slow"])
        return self.out(fast)


@pytest.mark.parametrize("in_place", [True, False])
def test_a_state_that_leaves_as_it_entered_has_the_gradient_of_each_step(in_place: bool) -> None:
    torch.manual_seed(0)
    model = ClockworkLoop(in_place=in_place).double()
    x, y = torch.randn(SAMPLES, STEPS, 3).double(), torch.randn(SAMPLES, 1).double()
    leaf = tt.capture(model, x, y, loss=MSE)["cell"]
    seen: list[torch.Tensor] = []
    (SAMPLES * MSE(model(x, seen), y)).backward()
    true = [torch.zeros_like(one) if one.grad is None else one.grad for one in seen]
    np.testing.assert_allclose(leaf["cell_gradient"].values, torch.stack(true, 1).numpy(), atol=1e-14)


class Filter(nn.Module):
    """A state (sample, channel, place), as of a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv1d(8, 4, 3, padding=1)

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.layer(torch.cat([x, h], 1)))


class FilterLoop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = Filter(), nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.zeros_like(x[:, 0])
        for step in x.unbind(1):
            h = self.cell(step, h)
        return self.out(h.mean(-1))


def test_one_sample_is_no_step_before_the_samples() -> None:
    x, y = torch.randn(3, 5, 4, 10), torch.randn(3, 1)
    model = FilterLoop()
    both = tt.capture(model, x, y, loss=nn.MSELoss(reduction="none"))["cell"]["hidden"]
    alone = tt.capture(model, x[:1], y[:1], loss=nn.MSELoss(reduction="none"))["cell"]["hidden"]
    assert both.sizes == {**alone.sizes, "sample": 3}
    np.testing.assert_allclose(alone.values, both.values[:1], rtol=1e-5)


class Decoder(nn.Module):
    def __init__(self, layers: int) -> None:
        super().__init__()
        self.embed, self.gru, self.out = nn.Embedding(7, 4), nn.GRU(4, 4, layers), nn.Linear(4, 1)

    def forward(self, tokens: torch.Tensor, h: torch.Tensor) -> Any:
        output, h = self.gru(self.embed(tokens)[None], h)
        return self.out(output[0]), h


class DecoderLoop(nn.Module):
    def __init__(self, layers: int) -> None:
        super().__init__()
        self.cell, self.layers = Decoder(layers), layers

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        h = torch.zeros(self.layers, len(tokens), 4)
        for step in tokens.unbind(1):
            output, h = self.cell(step, h)
        return output


@pytest.mark.parametrize("layers", [1, 2])
def test_layers_stand_before_the_samples_of_tokens(layers: int) -> None:
    tokens, y = torch.randint(0, 7, (SAMPLES, 6)), torch.randn(SAMPLES, 1)
    leaf = tt.capture(DecoderLoop(layers), tokens, y, loss=MSE, layers=["cell"])["cell"]
    assert (leaf.sizes["sample"], leaf.sizes["time"]) == (SAMPLES, 6)


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_as_many_layers_as_samples_are_distinguished(kind: type[nn.Module], is_first: bool) -> None:
    """Samples stand where they stand in a batch with one more sample."""

    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = kind(3, UNITS, 2, batch_first=is_first)

        def forward(self, x: torch.Tensor, states: Any) -> Any:
            """States have samples first with `is_first`, else layers first, as torch's have them."""
            turned = [one.transpose(0, 1) if is_first else one for one in states]
            states = tuple(turned) if kind is nn.LSTM else turned[0]
            output, states = self.rnn(x.unsqueeze(int(is_first)), states)
            left = states if kind is nn.LSTM else (states,)
            return output.squeeze(int(is_first)), [one.transpose(0, 1) if is_first else one for one in left]

    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = Stack()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            shape = (len(x), 2) if is_first else (2, len(x))
            states = [x.new_zeros(*shape, UNITS) for _ in range(2 if kind is nn.LSTM else 1)]
            for step in x.unbind(1):
                output, states = self.cell(step, states)
            return output

    torch.manual_seed(0)
    model, x, y = Loop().double(), torch.randn(3, STEPS, 3).double(), torch.randn(3, UNITS).double()
    loss = nn.MSELoss(reduction="none")
    more = tt.capture(model, x, y, loss=loss, layers=["cell"])["cell"].isel(sample=slice(2))
    ours = tt.capture(model, x[:2], y[:2], loss=loss, layers=["cell"])["cell"]
    names = ["hidden", "hidden_gradient", "initial_hidden_gradient", "carried_gradient"]
    for name in [*names, *(["cell", "cell_gradient"] if kind is nn.LSTM else [])]:
        np.testing.assert_allclose(ours[name].values, more[name].values, rtol=1e-9, atol=1e-14, err_msg=name)
    assert ours["certificate_time"] <= 1e-12


class TwoMemories(nn.Module):
    """A state (sample, unit) before one of (layer, sample, unit)."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.memory = nn.GRUCell(3, UNITS), nn.GRU(UNITS, UNITS, 3)

    def forward(self, x: torch.Tensor, h: torch.Tensor, memory: torch.Tensor) -> tuple[torch.Tensor, ...]:
        h = self.cell(x, h)
        output, memory = self.memory(h[None], memory)
        return output[0], h, memory


class OfTwoMemories(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = TwoMemories()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, memory = x.new_zeros(len(x), UNITS), x.new_zeros(3, len(x), UNITS)
        for step in x.unbind(1):
            output, h, memory = self.cell(step, h, memory)
        return output


def test_as_many_layers_as_samples_are_distinguished_whatever_is_asked_for() -> None:
    torch.manual_seed(0)
    model, x, y = OfTwoMemories().double(), torch.randn(3, STEPS, 3).double(), torch.randn(3, UNITS).double()
    few, every = (
        tt.capture(model, x, y, loss=nn.MSELoss(), layers=["cell"], quantities=asked)["cell"]
        for asked in (["hidden", "hidden_gradient"], "all")
    )
    for name in few.data_vars:
        np.testing.assert_array_equal(few[name].values, every[name].values)


@dataclass(eq=False)
class Held:
    h: Any
    context: Any = None
    parent: Any = None


class Holding(nn.Module):
    """It returns an object that it keeps, beside a weight that the object holds too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(7, 4), nn.Parameter(torch.ones(4))
        self.held = Held(None, self.scale)
        self.held.parent = Held(None, parent=self.held)

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> Held:
        self.held.h = torch.tanh(self.layer(torch.cat([x, h], -1))) * self.held.context
        return self.held


class HoldingLoop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = Holding()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = x.new_zeros(len(x), 4)
        for step in x.unbind(1):
            h = self.cell(step, h).h
        return h


def test_an_object_that_a_module_keeps_is_as_it_was() -> None:
    model = HoldingLoop()
    before = vars(model.cell.held).copy()
    x, y = torch.randn(SAMPLES, STEPS, 3), torch.randn(SAMPLES, 4)
    leaf = tt.capture(model, x, y, loss=MSE)["cell"]
    assert leaf.sizes["time"] == STEPS
    after = vars(model.cell.held)
    assert all(after[name] is value for name, value in before.items())


@dataclass(eq=False)
class Memory(nn.Module):
    """A dataclass that is a module: its state is one, its weight and its buffer are not."""

    h: Any = None

    def __post_init__(self) -> None:
        h = self.h
        super().__init__()
        self.h, self.scale = h, nn.Parameter(torch.ones(4))
        self.register_buffer("shift", torch.zeros(4))


class WithMemory(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(7, 4)

    def forward(self, memory: Memory, x: torch.Tensor) -> Memory:
        weighted = memory.scale * torch.tanh(self.layer(torch.cat([x, memory.h], -1)))
        memory.h = weighted + memory.shift
        return memory


class MemoryLoop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.memory = WithMemory(), Memory()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.memory.h = x.new_zeros(len(x), 4)
        for step in x.unbind(1):
            self.cell(self.memory, step)
        return self.memory.h


def test_a_dataclass_that_is_a_module_carries_its_state_alone() -> None:
    torch.manual_seed(0)
    model, x, y = MemoryLoop(), torch.randn(SAMPLES, STEPS, 3), torch.randn(SAMPLES, 4)
    leaf = tt.capture(model, x, y, loss=nn.MSELoss(reduction="none"))["cell"]
    np.testing.assert_array_equal(leaf["input"].values, x.numpy())
    assert leaf.attrs["carried"] == "hidden: memory.h"
    h, states = torch.zeros(SAMPLES, 4), []
    for step in x.unbind(1):
        h = torch.tanh(model.cell.layer(torch.cat([step, h], -1)))
        states.append(h)
        h.retain_grad()
    ((h - y) ** 2).mean(1).sum().backward()
    np.testing.assert_allclose(leaf["hidden"].values, torch.stack(states, 1).detach(), rtol=1e-5, atol=1e-7)
    expected = torch.stack([one.grad for one in states], 1)
    np.testing.assert_allclose(leaf["hidden_gradient"].values, expected, rtol=1e-4, atol=1e-7)
    assert type(model.memory.scale) is nn.Parameter
    assert model.memory.h is None
