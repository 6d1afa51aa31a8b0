"""Loops as tutorials and papers write them.

The oracle is plain autograd by hooks: `retain_grad` on what a module returned, a zero added to what it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from tests.torch.comparison import difference
from tests.torch.rows import normal, seeded
from tests.torch.test_recurrences import LeakyRNN, Loop, OfPairs, WrittenLSTM
from torch import nn

import throughtime as tt

B, T, M, N, K = 3, 5, 2, 4, 1
MSE = nn.MSELoss()
X, Y = normal(B, T, M), normal(B, T, K, seed=7)


class Around(nn.Module):
    """A module around a cell, which returns the cell's states as they are."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.embed, self.inner, self.norm = nn.Linear(M, M), cell, nn.LayerNorm(N)

    def forward(self, x: torch.Tensor, state: Any) -> Any:
        h, c = self.inner(self.embed(x), state)
        return self.norm(h), (h, c)


class AroundLoop(OfPairs):
    def call(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        output, state = self.cell(x, state)
        return output, state


@dataclass
class Held:
    h: torch.Tensor
    c: torch.Tensor


class Pair(NamedTuple):
    h: torch.Tensor
    c: torch.Tensor


class OfKind(WrittenLSTM):
    """An LSTM whose states are an object."""

    def __init__(self, kind: Callable[..., Any]) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: torch.Tensor, state: Any) -> Any:
        return self.kind(*super().forward(x, (state.h, state.c)))


class KindLoop(Loop):
    def start(self, x: torch.Tensor) -> Any:
        return self.cell.kind(x.new_zeros(len(x), N), x.new_zeros(len(x), N))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state, outputs = self.start(x), []
        for entering in x.unbind(1):
            state = self.cell(entering, state)
            outputs.append(self.head(state.h))
        return torch.stack(outputs, 1)


class TokenGRU(nn.Module):
    """A decoder that embeds its tokens, with its layers before its samples."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.again, self.out = nn.Embedding(7, N), nn.Linear(N, N), nn.Linear(N, K)

    def forward(self, tokens: torch.Tensor, h: torch.Tensor) -> Any:
        h = torch.tanh(self.embed(tokens).unsqueeze(0) + self.again(h))
        return self.out(h[0]), h


class TokenLoop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = TokenGRU()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        h, outputs = torch.zeros(1, len(tokens), N, dtype=torch.float64), []
        for step in tokens.unbind(1):
            output, h = self.cell(step, h)
            outputs.append(output)
        return torch.stack(outputs, 1)


class StepSlices(Loop):
    """Steps come first, and each call gets one of them, (1, sample, feature)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, outputs = x.new_zeros(1, x.shape[1], N), []
        for step in range(len(x)):
            h = self.cell(x[step : step + 1], h)
            outputs.append(self.head(h))
        return torch.cat(outputs)


class Block(nn.Module):
    """A residual block that takes a mask if there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(N, N)

    def forward(self, h: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        h = h + self.linear(h).tanh()
        return h if mask is None else h * mask


class Tied(nn.Module):
    """One block as every layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.cell, self.head = nn.Linear(M, N), Block(), nn.Linear(N, K)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.embed(x)
        for _ in range(3):
            h = self.cell(h)
        return self.head(h)


class OneByOne(Loop):
    """Takes one sample after another, each with its own number of steps."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs = []
        for number, sample in enumerate(x):
            h = x.new_zeros(1, N)
            for step in sample[: number + 2]:
                h = self.cell(step[None], h)
            outputs.append(self.head(h))
        return torch.cat(outputs)


class MatrixMemory(nn.Module):
    """A fast-weight memory with an exponential gate, its normalizer and its stabilizer."""

    def __init__(self) -> None:
        super().__init__()
        self.mapped, self.gates = nn.Linear(M, 3 * N), nn.Linear(M, 2)

    def forward(self, x: torch.Tensor, states: Any) -> Any:
        memory, total, highest = states
        query, key, value = self.mapped(x).chunk(3, -1)
        enters, keeps = self.gates(x).chunk(2, -1)
        peak = torch.maximum(keeps + highest, enters)
        keeps, enters = (keeps + highest - peak).exp(), (enters - peak).exp()
        memory = keeps[..., None] * memory + enters[..., None] * value[:, :, None] * key[:, None]
        total = keeps * total + enters * key
        read = (memory @ query[..., None])[..., 0] / (1 + (total * query).sum(-1, keepdim=True).abs())
        return read, (memory, total, peak)


class MemoryLoop(AroundLoop):
    def start(self, x: torch.Tensor) -> Any:
        return x.new_zeros(len(x), N, N), x.new_zeros(len(x), N), x.new_zeros(len(x), 1)


TOKENS = torch.arange(B * T).reshape(B, T) % 7
PROGRAMS: dict[str, tuple[Callable[[], nn.Module], Any, dict[str, Any]]] = {
    "around_a_cell_of_the_users": (lambda: AroundLoop(Around(WrittenLSTM())), X, {}),
    "around_torchs_cell": (
        lambda: AroundLoop(Around(nn.LSTMCell(M, N))),
        X,
        {"layers": ["recurrent", "cell"]},
    ),
    "dataclass": (lambda: KindLoop(OfKind(Held)), X, {}),
    "named_tuple": (lambda: KindLoop(OfKind(Pair)), X, {}),
    "tokens": (TokenLoop, TOKENS, {}),
    "slices_of_steps": (lambda: StepSlices(LeakyRNN()), X.transpose(0, 1).contiguous(), {}),
    "tied_layers": (Tied, X, {}),
    "one_sample_after_another": (lambda: OneByOne(LeakyRNN()), X, {}),
    "torchs_cell_one_by_one": (lambda: OneByOne(nn.GRUCell(M, N)), X, {}),
    "matrix_memory": (lambda: MemoryLoop(MatrixMemory()), X, {}),
}


def by_hooks(model: Any, x: torch.Tensor, y: torch.Tensor) -> list[dict[int, tuple[np.ndarray, np.ndarray]]]:
    """Values, and gradients of each sample's own loss, of what each call of `model.cell` returned."""
    calls: list[list[torch.Tensor]] = []

    def keep(*call: Any) -> None:
        calls.append(list(floating(call[-1])))
        for one in calls[-1]:
            one.retain_grad()

    handle = model.cell.register_forward_hook(keep)
    (MSE(model(x), y) * B).backward()
    handle.remove()
    nothing = torch.zeros(())
    return [
        {
            place: (one.detach().numpy(), (nothing.expand_as(one) if one.grad is None else one.grad).numpy())
            for place, one in enumerate(call)
        }
        for call in calls
    ]


def floating(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    else:
        for one in vars(value).values() if isinstance(value, Held) else value:
            yield from floating(one)


@pytest.mark.parametrize("name", PROGRAMS)
def test_states_and_their_gradients_are_those_of_plain_autograd(name: str) -> None:
    build, x, options = PROGRAMS[name]
    model = seeded(build())
    shape = model(x).shape
    y = normal(*shape, seed=7)
    tree = tt.capture(model, x, y, loss=MSE, **options)
    calls = by_hooks(model, x, y)
    start = 0
    for leaf in tree.leaves:
        here = calls[start : start + leaf.sizes["time"]]
        start += len(here)
        for state in leaf.attrs.get("states", "hidden").split(", "):
            ours = leaf[state].values, leaf[f"{state}_gradient"].values
            assert any(agree(ours, here, place) for place in here[0]), (leaf.path, state)
        for quantity in ("certificate_time", "certificate_weights"):
            assert quantity not in leaf or not float(leaf[quantity].max()) > 1e-12
    assert start == len(calls)


def agree(ours: Any, calls: Any, place: int) -> bool:
    """Whether a result of all calls is this state, with this gradient."""
    each = [np.stack([call[place][side] for call in calls], 1) for side in (0, 1)]
    if each[0].shape[0] == 1 != ours[0].shape[0] and each[0].ndim > 3:
        each = [one.swapaxes(0, 2) for one in each]  # (1, time, sample, unit)
    if each[0].shape != ours[0].shape or difference(ours[0], each[0]) > 1e-12:
        return False
    return float(np.abs(ours[1] - each[1]).max()) <= 1e-12


class WrittenOut(nn.Module):
    """A loop without a cell; `named` is what happens to the state in it."""

    def __init__(self, named: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.linear, self.head, self.named = nn.Linear(M + N, N), nn.Linear(N, K), named

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, outputs = x.new_zeros(len(x), N), []
        for step in x.unbind(1):
            h = self.named(self.linear(torch.cat([step, h], -1)).tanh())
            outputs.append(self.head(h))
        return torch.stack(outputs, 1)


def test_the_error_for_a_loop_that_is_not_seen_has_a_remedy_that_works() -> None:
    with pytest.raises(tt.LayerNotFoundError, match=r"tt\.mark\(h, 'memory'\) in the loop shows h"):
        tt.capture(seeded(WrittenOut(lambda h: h)), X, Y, loss=MSE)
    leaf = tt.capture(seeded(WrittenOut(lambda h: tt.mark(h, "memory"))), X, Y, loss=MSE)["memory"]
    states: list[torch.Tensor] = []

    def kept(h: torch.Tensor) -> torch.Tensor:
        h.retain_grad()
        states.append(h)
        return h

    (MSE(seeded(WrittenOut(kept))(X), Y) * B).backward()
    assert difference(leaf["output"], torch.stack(states, 1).detach().numpy()) <= 1e-12
    assert difference(leaf["output_gradient"], torch.stack([h.grad for h in states], 1).numpy()) <= 1e-12
