"""Recurrent layers unrolled by hand in plain torch, with a zero added wherever a gradient is wanted.

The oracle of the native adapter: written after torch's documentation, one sample and one step at a time,
sharing no code with the library. `gradients` puts it in the place of every recurrent layer of a copy of a
model and differentiates by `torch.autograd.grad`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from tests.torch import cell_oracle
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

Tensor = torch.Tensor
GATES = {"lstm": ("input", "forget", "candidate", "output"), "gru": ("reset", "update", "candidate")}
SCHEMA = {"lstm": ("input", "forget", "candidate", "output"), "gru": ("update", "reset", "candidate")}


@dataclass
class Seen:
    """One leaf: values and taps (sample, time) of lists of tensors, by direction; weights and theirs."""

    kind: str
    directions: int = 1
    values: dict[str, Any] = field(default_factory=dict)
    taps: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, list[Tensor]] = field(default_factory=dict)


def zero_like(value: Tensor) -> Tensor:
    return torch.zeros_like(value, requires_grad=True)


class Steps:
    """The equations of one direction of one layer; `weights` in torch's order."""

    def __init__(self, kind: str, weights: list[Tensor], *, relu: bool = False) -> None:
        self.kind, self.relu = kind, relu
        count = len(weights)
        self.w_ih, self.w_hh = weights[:2]
        self.b_ih, self.b_hh = weights[2:4] if count >= 4 else (0.0, 0.0)
        self.w_hr = weights[-1] if count % 2 else None

    def __call__(self, x: Tensor, states: list[Tensor], note: Callable[..., Tensor]) -> list[Tensor]:
        """One step; `note(name, value)` keeps the value and returns it with its tap added."""
        h = states[0]
        left, right = self.w_ih @ x + self.b_ih, self.w_hh @ h + self.b_hh
        if self.kind == "simple_rnn":
            z = note("gate", left + right)
            return [note("hidden", z.relu() if self.relu else z.tanh())]
        if self.kind == "lstm":
            i, f, g, o = note("gate", (left + right).reshape(4, -1))
            i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
            note("activation", torch.stack([i, f, g, o]))
            c = note("cell", f * states[1] + i * g)
            h = o * c.tanh()
            return [note("hidden", h if self.w_hr is None else self.w_hr @ h), c]
        # The candidate's tap is on the input side: its reset gate acts on the recurrent side alone.
        left = note("gate", left.reshape(3, -1))
        right = right.reshape(3, -1)
        r, z = (left[0] + right[0]).sigmoid(), (left[1] + right[1]).sigmoid()
        n = (left[2] + r * right[2]).tanh()
        note("activation", torch.stack([r, z, n]))
        return [note("hidden", (1 - z) * n + z * h)]


class Oracle:
    """Collects what the unrolled layers of one model see, by the path of the leaf."""

    def __init__(self) -> None:
        self.seen: dict[str, Seen] = {}
        self.cells: dict[str, Any] = {}
        self.calls: dict[str, int] = {}

    def install(self, model: nn.Module) -> None:
        """Put unrolled layers into a model."""
        for name, module in model.named_modules():
            path = name.replace(".", "/") or type(module).__name__.lower()
            if isinstance(module, nn.RNNBase):
                vars(module)["forward"] = Layer(self, path, module).forward
            elif isinstance(module, nn.RNNCellBase):
                vars(module)["forward"] = cell_oracle.Cell(self, path, module).forward

    def next_path(self, path: str) -> str:
        self.calls[path] = self.calls.get(path, 0) + 1
        return path if self.calls[path] == 1 else f"{path}@{self.calls[path]}"


class Layer:
    """An nn.RNN, LSTM or GRU in its own conventions of shapes."""

    def __init__(self, oracle: Oracle, path: str, module: Any) -> None:
        self.oracle, self.path, self.module = oracle, path, module
        self.kind = {"LSTM": "lstm", "GRU": "gru"}.get(module.mode, "simple_rnn")

    def forward(self, x: Any, hx: Any = None) -> Any:
        module, path = self.module, self.oracle.next_path(self.path)
        packed = isinstance(x, PackedSequence)
        samples = list(self._samples(x))
        states = self._states(hx, len(samples), samples[0], unbatched=not packed and x.ndim == 2)
        final: list[list[list[Tensor]]] = []
        for place in range(module.num_layers):
            if place and module.training and module.dropout:
                raise AssertionError("the oracle runs without dropout")
            own = f"{path}/{place}" if module.num_layers > 1 else path
            seen = self.oracle.seen[own] = Seen(self.kind, 2 if module.bidirectional else 1)
            samples, ends = self._layer(seen, place, samples, states)
            final += ends
        return self._returned(x, samples, final)

    def _samples(self, x: Any) -> Iterator[Tensor]:
        if isinstance(x, PackedSequence):
            padded, lengths = pad_packed_sequence(x, batch_first=True)
            yield from (sample[:length] for sample, length in zip(padded, lengths, strict=True))
        elif x.ndim == 2:
            yield x
        else:
            yield from (x if self.module.batch_first else x.transpose(0, 1))

    def _states(self, hx: Any, count: int, like: Tensor, *, unbatched: bool) -> list[Tensor]:
        """Initial states (layer · direction, sample, unit)."""
        module = self.module
        rows = module.num_layers * (2 if module.bidirectional else 1)
        widths = [module.proj_size or module.hidden_size, module.hidden_size]
        if hx is None:
            return [torch.zeros(rows, count, width).to(like) for width in widths]
        given = hx if isinstance(hx, tuple) else (hx,)
        return [state.unsqueeze(1) if unbatched else state for state in given]

    def _layer(
        self, seen: Seen, place: int, samples: list[Tensor], states: list[Tensor]
    ) -> tuple[list[Tensor], list[list[list[Tensor]]]]:
        """Outputs of one layer, and final states by direction, sample and kind."""
        module, outputs, ends = self.module, [[] for _ in samples], []
        taps = [zero_like(sample) for sample in samples]
        seen.values["input"], seen.taps["input"] = samples, taps
        samples = [sample + tap for sample, tap in zip(samples, taps, strict=True)]
        for number in range(seen.directions):
            suffix = f"_l{place}{'_reverse' if number else ''}"
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
            weights = [getattr(module, n + suffix) for n in names if hasattr(module, n + suffix)]
            seen.weights.setdefault("given", []).append(weights)
            step = Steps(self.kind, weights, relu=module.mode == "RNN_RELU")
            ends.append([])
            for b, sample in enumerate(samples):
                row = place * seen.directions + number
                start = [state[row, b] for state in states[: 2 if self.kind == "lstm" else 1]]
                out, last = unrolled(seen, step, sample, start, backward=bool(number))
                outputs[b].append(out)
                ends[-1].append(last)
        joined = [torch.cat(parts, -1) for parts in outputs]
        seen.values["output"] = joined
        seen.taps["output"] = [zero_like(out) for out in joined]
        return [out + tap for out, tap in zip(joined, seen.taps["output"], strict=True)], ends

    def _returned(self, x: Any, samples: list[Tensor], final: list[list[list[Tensor]]]) -> Any:
        states = tuple(
            torch.stack([torch.stack([sample[k] for sample in row]) for row in final])
            for k in range(len(final[0][0]))
        )
        if isinstance(x, PackedSequence):
            order = range(len(samples)) if x.sorted_indices is None else x.sorted_indices.tolist()
            rows = [samples[b][t] for t, size in enumerate(x.batch_sizes) for b in list(order)[:size]]
            output: Any = PackedSequence(torch.stack(rows), *x[1:])
        elif x.ndim == 2:
            output, states = samples[0], tuple(state[:, 0] for state in states)
        else:
            output = torch.stack(samples, 0 if self.module.batch_first else 1)
        return output, states if len(states) > 1 else states[0]


def unrolled(
    seen: Seen, step: Steps, x: Tensor, states: list[Tensor], *, backward: bool
) -> tuple[Tensor, list[Tensor]]:
    """One direction over one sample: its output in input time, and the last states."""
    at: dict[str, list[Tensor]] = {}
    taps: dict[str, list[Tensor]] = {}

    def note(name: str, value: Tensor) -> Tensor:
        at.setdefault(name, []).append(value)
        taps.setdefault(name, []).append(zero_like(value))
        return value + taps[name][-1]

    initial = [zero_like(state) for state in states]
    states = [state + tap for state, tap in zip(states, initial, strict=True)]
    order = range(len(x) - 1, -1, -1) if backward else range(len(x))
    for t in order:
        states = step(x[t], states, note)
    outputs = [value + tap for value, tap in zip(at["hidden"], taps["hidden"], strict=True)]
    flip = slice(None, None, -1 if backward else 1)
    for kept, found in ((seen.values, at), (seen.taps, taps)):
        for name, values in found.items():
            kept.setdefault(name, []).append(values[flip])
    for name, tap in zip(("initial_hidden", "initial_cell"), initial, strict=False):
        seen.taps.setdefault(name, []).append([tap])
    return torch.stack(outputs[flip]), states


def gradients(model: nn.Module, x: Any, y: Any, loss: Callable[..., Any]) -> dict[str, dict[str, np.ndarray]]:
    """All that a tree should hold, by leaf and by the schema's name, batch mean included.

    The model is turned to float64 and stays so, with unrolled layers.
    """
    model, x, y = model.double().eval(), double(x), double(y)
    oracle = Oracle()
    oracle.install(model)
    for parameter in model.parameters():
        parameter.requires_grad_()
    with parametrize.cached():  # one tensor for all uses of a weight
        value = loss(called(model, x), y).mean()
    leaves = {path: _leaf(seen, value) for path, seen in oracle.seen.items()}
    return leaves | {path: cell_oracle.leaf(seen, value) for path, seen in oracle.cells.items()}


def called(model: nn.Module, x: Any) -> Any:
    if isinstance(x, tuple) and not isinstance(x, PackedSequence):
        return model(*x)
    return model(**x) if isinstance(x, dict) else model(x)


def double(structure: Any) -> Any:
    if isinstance(structure, PackedSequence):
        return structure.double()
    if isinstance(structure, dict):
        return {name: double(part) for name, part in structure.items()}
    if isinstance(structure, (tuple, list)):
        return type(structure)(double(part) for part in structure)
    is_float = isinstance(structure, torch.Tensor) and structure.is_floating_point()
    return structure.detach().double() if is_float else structure


def _leaf(seen: Seen, loss: Tensor) -> dict[str, np.ndarray]:
    """Differentiate, and arrange by the schema: (sample, time, [direction], …)."""
    found = {}
    samples = len(seen.values["input"])
    for name in ("input", "output"):
        found[name] = padded(seen.values[name])
        found[f"{name}_gradient"] = padded(grads(loss, seen.taps[name]))
    per = {"hidden": "hidden", "cell": "cell", "activation": "gate_activation"}
    for name, variable in per.items():
        if name in seen.values and (name != "activation" or seen.kind in GATES):
            found[variable] = _by_direction(seen, seen.values[name], samples, name)
    names = {"hidden": "hidden_gradient", "cell": "cell_gradient", "gate": "gate_gradient"}
    for name, variable in names.items():
        if name in seen.taps:
            each = [grads(loss, sequence) for sequence in seen.taps[name]]
            found[variable] = _by_direction(seen, each, samples, name)
    for name in ("initial_hidden", "initial_cell"):
        if name in seen.taps:
            each = [grads(loss, taps) for taps in seen.taps[name]]
            found[f"{name}_gradient"] = _by_direction(seen, each, samples, name)[:, 0]
    return found | _weights(seen, loss)


def _by_direction(seen: Seen, sequences: list[Any], samples: int, name: str) -> np.ndarray:
    """Sequences direction after direction, each sample after sample."""
    parts = []
    for number in range(seen.directions):
        own = [
            torch.stack(list(sequence)) for sequence in sequences[number * samples : (number + 1) * samples]
        ]
        parts.append(padded(own))
    stacked = np.stack(parts, 2) if seen.directions > 1 else parts[0]
    if name in ("gate", "activation") and seen.kind in GATES:
        stacked = in_order(seen.kind, stacked)
    return stacked


def in_order(kind: str, gates: np.ndarray) -> np.ndarray:
    """Bring gates (…, gate, unit) from torch's order into the schema's."""
    return np.take(gates, [GATES[kind].index(gate) for gate in SCHEMA[kind]], axis=-2)


def _weights(seen: Seen, loss: Tensor) -> dict[str, np.ndarray]:
    names = ("kernel", "recurrent_kernel", "bias", "recurrent_bias")
    found: dict[str, np.ndarray] = {}
    parts: dict[str, list[np.ndarray]] = {}
    for weights in seen.weights["given"]:
        own = [*names[: 4 if len(weights) >= 4 else 2], *(["projection"] if len(weights) % 2 else [])]
        for name, weight, gradient in zip(own, weights, grads(loss, weights), strict=True):
            parts.setdefault(name, []).append(gates_apart(seen.kind, name, weight))
            parts.setdefault(f"{name}_gradient", []).append(gates_apart(seen.kind, name, gradient))
    for name, each in parts.items():
        found[name] = np.stack(each) if seen.directions > 1 else each[0]
    return found


def gates_apart(kind: str, name: str, weight: Tensor) -> np.ndarray:
    array = weight.detach().numpy()
    if name == "projection" or kind not in GATES:
        return array.T
    rows = array.shape[0] // len(GATES[kind])
    blocks = {gate: array[k * rows : (k + 1) * rows] for k, gate in enumerate(GATES[kind])}
    return np.stack([blocks[gate].T for gate in SCHEMA[kind]], -2)


def grads(loss: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True)]


def padded(samples: list[Tensor]) -> np.ndarray:
    """Stack samples of several lengths, 0 past the end."""
    arrays = [sample.detach().numpy() for sample in samples]
    result = np.zeros((len(arrays), max(map(len, arrays)), *arrays[0].shape[1:]))
    for row, array in zip(result, arrays, strict=True):
        row[: len(array)] = array
    return result
