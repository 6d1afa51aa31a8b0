"""The support table of native PyTorch: one row per case, each building a small module with seeded weights.

Every row is compared with `oracle.gradients`, which unrolls its recurrent layers by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, rnn, weight_norm

B, T, M, N, K = 3, 5, 2, 3, 2  # samples, steps, features, units, outputs
KINDS = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn_tanh": nn.RNN,
    "rnn_relu": partial(nn.RNN, nonlinearity="relu"),
}
CELLS = {
    "lstm": nn.LSTMCell,
    "gru": nn.GRUCell,
    "rnn_tanh": nn.RNNCell,
    "rnn_relu": partial(nn.RNNCell, nonlinearity="relu"),
}
LAYOUTS = ("batch_first", "time_first", "unbatched", "packed", "packed_unsorted")
STACKS = {"one": {}, "both": {"bidirectional": True}, "two": {"num_layers": 2}}
STACKS["two_both"] = STACKS["both"] | STACKS["two"]


@dataclass(frozen=True)
class Case:
    """A module in float64, its batch, and what its tree has to hold."""

    model: nn.Module
    x: Any
    y: Any
    paths: tuple[str, ...]
    loss: Callable[..., Any] = nn.functional.mse_loss
    factor: float | None = 1 / B  # None where the loss couples samples
    changed: bool = False  # states are halved between the calls of a cell
    dtype: torch.dtype | None = None  # of the leaves, where that is not the row's


@dataclass(frozen=True)
class Row:
    """One case; `build()` makes it anew."""

    name: str
    group: str
    build: Callable[[], Case]
    oracle: str = "torch"


def seeded(model: nn.Module, seed: int = 3) -> nn.Module:
    """Give every weight values of order 0.5, and the module float64."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.5 * torch.randn(weight.shape, generator=generator, dtype=torch.float64))
    return model


def normal(*shape: int, seed: int = 6) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Reader(nn.Module):
    """A recurrent layer and a head on its sequence, in any layout."""

    def __init__(self, kind: str, layout: str, **options: Any) -> None:
        super().__init__()
        self.layout = layout
        self.rnn = KINDS[kind](M, N, batch_first=layout != "time_first", **options)
        width = options.get("proj_size") or N
        self.head = nn.Linear(width * (2 if options.get("bidirectional") else 1), K)

    def forward(self, x: Any, lengths: Any = None) -> Any:
        if lengths is None:
            return self.head(self.rnn(x)[0])
        is_sorted = self.layout == "packed"
        packed = rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=is_sorted)
        output, _ = self.rnn(packed)
        padded, _ = rnn.pad_packed_sequence(output, batch_first=True)
        return self.head(padded)


LENGTHS = {"packed": torch.tensor([T, 4, 2]), "packed_unsorted": torch.tensor([2, T, 4])}


def reader(kind: str, layout: str, **options: Any) -> Case:
    model = seeded(Reader(kind, layout, **options))
    layers = options.get("num_layers", 1)
    paths = tuple(f"rnn/{k}" for k in range(layers)) if layers > 1 else ("rnn",)
    x, y = normal(B, T, M), normal(B, T, K, seed=7)
    if layout == "unbatched":
        return Case(model, x[0], y[0], paths, factor=1.0)
    if layout == "time_first":
        return Case(model, x.transpose(0, 1).contiguous(), y.transpose(0, 1).contiguous(), paths)
    return Case(model, (x, LENGTHS[layout]) if layout in LENGTHS else x, y, paths)


GRID = [
    Row(f"{kind}_{stack}_{layout}", layout, partial(reader, kind, layout, **STACKS[stack]))
    for layout, kind, stack in product(LAYOUTS, KINDS, STACKS)
]
OPTIONS = [
    *(
        Row(f"{kind}_without_bias", "options", partial(reader, kind, "batch_first", bias=False))
        for kind in KINDS
    ),
    *(
        Row(
            f"projected_{stack}_{layout}",
            "projected",
            partial(reader, "lstm", layout, proj_size=2, **STACKS[stack]),
        )
        for layout, stack in product(LAYOUTS, ("one", "two_both"))
    ),
    Row(
        "projected_without_bias",
        "projected",
        partial(reader, "lstm", "batch_first", proj_size=2, bias=False, num_layers=2),
    ),
    Row(
        "dropout_between_layers",
        "options",
        partial(reader, "gru", "batch_first", num_layers=2, dropout=0.5),
    ),
]


class Loop(nn.Module):
    """A cell in a loop of one's own."""

    def __init__(self, kind: str, mode: str = "sequence", **options: Any) -> None:
        super().__init__()
        self.mode = mode
        self.cell = CELLS[kind](M, N, **options)
        self.head = nn.Linear(N, K)

    def forward(self, x: torch.Tensor, initial: Any = None) -> torch.Tensor:
        state, outputs = initial, []
        for step in x.unbind(-2):
            state = self.cell(step, state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
            if self.mode == "changed":
                state = tuple(0.5 * part for part in state) if isinstance(state, tuple) else 0.5 * state
        return self.head(outputs[-1] if self.mode == "last" else torch.stack(outputs, -2))


def loop(kind: str, mode: str, **options: Any) -> Case:
    model = seeded(Loop(kind, mode, **options))
    x, y = normal(B, T, M), normal(B, T, K, seed=7)
    if mode == "unbatched":
        return Case(model, x[0], y[0], ("cell",), factor=1.0)
    if mode == "given":
        h, c = normal(B, N, seed=8), normal(B, N, seed=9)
        return Case(model, (x, (h, c) if kind == "lstm" else h), y, ("cell",))
    return Case(model, x, y[:, -1] if mode == "last" else y, ("cell",), changed=mode == "changed")


LOOPS = [
    Row(f"{kind}_cell_{mode}", "cells", partial(loop, kind, mode))
    for kind, mode in product(CELLS, ("sequence", "last", "changed", "given", "unbatched"))
]
LOOPS += [
    Row(f"{kind}_cell_without_bias", "cells", partial(loop, kind, "sequence", bias=False)) for kind in CELLS
]

SPECIALS: list[Row] = []


def special(group: str) -> Callable[[Callable[[], Case]], Callable[[], Case]]:
    def add(build: Callable[[], Case]) -> Callable[[], Case]:
        SPECIALS.append(Row(build.__name__, group, build))
        return build

    return add


class StackOfCells(nn.Module):
    """Two cells one above the other, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.ModuleList([nn.LSTMCell(M, N), nn.GRUCell(N, N)])
        self.head = nn.Linear(N, K)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low, high, outputs = None, None, []
        for step in x.unbind(1):
            low = self.cells[0](step, low)
            high = self.cells[1](low[0], high)
            outputs.append(self.head(high))
        return torch.stack(outputs, 1)


@special("cells")
def stacked_cells() -> Case:
    return Case(seeded(StackOfCells()), normal(B, T, M), normal(B, T, K, seed=7), ("cells/0", "cells/1"))


class TwoLoops(nn.Module):
    """One cell in two sequences whose calls alternate."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(M, N), nn.Linear(2 * N, K)

    def forward(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        left = right = None
        for a, b in zip(x.unbind(1), z.unbind(1), strict=True):
            left, right = self.cell(a, left), self.cell(b, right)
        return self.head(torch.cat([left, right], -1))


class Given(nn.Module):
    """A layer that starts from states that are given, and hands out its last ones."""

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__()
        self.rnn = KINDS[kind](M, N, num_layers=2, batch_first=True, **options)
        self.head = nn.Linear(N, K)

    def forward(self, x: torch.Tensor, states: Any) -> torch.Tensor:
        final = self.rnn(x, states)[1]
        h = final[0] + final[1] if isinstance(final, tuple) else final
        return self.head(h[-1] * h[0])


@special("states")
def states_given_and_returned_lstm() -> Case:
    h, c = normal(2, B, N, seed=8), normal(2, B, N, seed=9)
    return Case(seeded(Given("lstm")), (normal(B, T, M), (h, c)), normal(B, K, seed=7), ("rnn/0", "rnn/1"))


@special("states")
def states_given_and_returned_gru() -> Case:
    states = normal(2, B, N, seed=8)
    return Case(seeded(Given("gru")), (normal(B, T, M), states), normal(B, K, seed=7), ("rnn/0", "rnn/1"))


class EncoderDecoder(nn.Module):
    """The decoder starts from where the encoder ends."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.LSTM(M, N, batch_first=True)
        self.decoder = nn.LSTM(M, N, batch_first=True)
        self.head = nn.Linear(N, K)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self.head(self.decoder(target, self.encoder(source)[1])[0])


@special("states")
def encoder_decoder() -> Case:
    x = (normal(B, T, M), normal(B, T, M, seed=8))
    return Case(seeded(EncoderDecoder()), x, normal(B, T, K, seed=7), ("encoder", "decoder"))


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(M, N, batch_first=True), nn.Linear(2 * N, K)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([self.rnn(left)[0], self.rnn(right)[0]], -1))


@special("modules")
def shared_module() -> Case:
    x = (normal(B, T, M), normal(B, T, M, seed=8))
    return Case(seeded(Shared()), x, normal(B, T, K, seed=7), ("rnn", "rnn@2"))


class Listed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.GRU(M if k == 0 else N, N, batch_first=True) for k in range(3)])
        self.head = nn.Linear(N, K)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x, _ = block(x)
        return self.head(x)


@special("modules")
def modules_in_a_list() -> Case:
    paths = ("blocks/0", "blocks/1", "blocks/2")
    return Case(seeded(Listed()), normal(B, T, M), normal(B, T, K, seed=7), paths)


class First(nn.Module):
    def forward(self, pair: Any) -> torch.Tensor:
        return pair[0]


@special("modules")
def sequential() -> Case:
    model = nn.Sequential(nn.RNN(M, N, batch_first=True), First(), nn.ReLU(inplace=True), nn.Linear(N, K))
    return Case(seeded(model), normal(B, T, M), normal(B, T, K, seed=7), ("0",))


@special("modules")
def bare_module() -> Case:
    """The model is an `nn.LSTM`, its output the pair that it returns."""
    model = seeded(nn.LSTM(M, N, batch_first=True))
    return Case(model, normal(B, T, M), normal(B, T, N, seed=7), ("lstm",), loss=on_first)


def on_first(output: Any, y: torch.Tensor) -> torch.Tensor:
    return nn.functional.mse_loss(output[0], y)


class DictOutput(Reader):
    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        steps = self.rnn(x)[0]
        return {"steps": self.head(steps), "last": steps[:, -1].sum(-1)}


def on_dict(output: dict[str, Any], y: torch.Tensor) -> torch.Tensor:
    return nn.functional.mse_loss(output["steps"], y) + output["last"].square().mean()


@special("modules")
def dict_output() -> Case:
    model = seeded(DictOutput("lstm", "batch_first"))
    return Case(model, {"x": normal(B, T, M)}, normal(B, T, K, seed=7), ("rnn",), loss=on_dict)


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential()
        self.encoder.add_module("inner", Listed())
        self.top = nn.LSTM(K, N, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.top(self.encoder(x))[0][..., :K]


@special("modules")
def nested_modules() -> Case:
    paths = (*(f"encoder/inner/blocks/{k}" for k in range(3)), "top")
    return Case(seeded(Nested()), normal(B, T, M), normal(B, T, K, seed=7), paths)


class Flipping(nn.LSTM):
    """A layer with a forward of its own around torch's."""

    def forward(self, x: torch.Tensor, hx: Any = None) -> Any:
        output, states = super().forward(x.flip(1), hx)
        return output.flip(1), states


@special("weights")
def weight_norm_by_hooks() -> Case:
    model = reader("lstm", "batch_first").model
    with_hooks = weight_norm(model.rnn, "weight_hh_l0")
    return Case(
        seeded(model) if with_hooks is model.rnn else model, normal(B, T, M), normal(B, T, K), ("rnn",)
    )


@special("weights")
def weight_norm_by_parametrization() -> Case:
    case = reader("gru", "batch_first", bidirectional=True)
    for name in ("weight_hh_l0", "weight_ih_l0_reverse"):
        parametrizations.weight_norm(case.model.rnn, name)
    seeded(case.model)
    return case


@special("weights")
def parametrized_and_shared() -> Case:
    case = shared_module()
    parametrizations.weight_norm(case.model.rnn, "weight_hh_l0")
    seeded(case.model)
    return case


@special("weights")
def frozen_weights() -> Case:
    case = reader("lstm", "batch_first", num_layers=2)
    case.model.requires_grad_(False)
    return case


@special("weights")
def pruned_weights() -> Case:
    case = reader("lstm", "batch_first")
    prune.l1_unstructured(case.model.rnn, "weight_hh_l0", 0.5)
    return case


@special("cells")
def parametrized_cell() -> Case:
    case = loop("gru", "sequence")
    parametrizations.weight_norm(case.model.cell, "weight_hh")
    seeded(case.model)
    return case


@special("loss")
def loss_sum() -> Case:
    case = reader("lstm", "batch_first")
    loss = nn.MSELoss(reduction="sum")
    return Case(case.model, case.x, case.y, case.paths, loss=loss, factor=1.0)


@special("loss")
def loss_per_sample() -> Case:
    case = reader("lstm", "batch_first")
    return Case(case.model, case.x, case.y, case.paths, loss=lambda out, y: (out - y).square().mean((1, 2)))


@special("loss")
def loss_couples_samples() -> Case:
    case = reader("gru", "batch_first")

    def contrast(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (output.mean(0) - y.mean(0)).square().mean()

    return Case(case.model, case.x, case.y, case.paths, loss=contrast, factor=None)


@special("loss")
def cross_entropy_over_time() -> Case:
    case = reader("gru", "batch_first")
    y = torch.arange(B * T).reshape(B, T) % K

    def loss(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(output.transpose(1, 2), y)

    return Case(case.model, case.x, y, case.paths, loss=loss)


@special("loss")
def as_many_steps_as_samples() -> Case:
    case = reader("lstm", "time_first")
    return Case(case.model, case.x[:B], case.y[:B], case.paths)


ROWS = [*GRID, *OPTIONS, *LOOPS, *SPECIALS]
