"""Collects what `unrolled` found of one direction into records: one for each inner cell, in input time."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from throughtime._errors import ThroughTimeWarning
from throughtime._record import Array, SolvedRecord

from . import weights
from .arrays import is_float, numpy
from .cell import gate_names, gates_of, inner_cells, standard_kind, state_names
from .dropout import RECURRENT
from .program import Result
from .tap import Call
from .unrolled import BETWEEN
from .ways import activation_name

_NO_GATES = ("simple_rnn",)  # its only gate is its state


@dataclass(frozen=True)
class Direction:
    """One unrolled direction of one call, with both passes' results."""

    layer: Any
    call: Call
    part: int
    first: Result
    second: Result

    def gradient_of(self, variable: Any) -> Array | None:
        """Weight gradient through the unrolled layer."""
        floats = [weight for weight in self.layer.weights if is_float(weight.dtype)]
        position = next((k for k, each in enumerate(floats) if each is variable), None)
        return self._second(f"variable.{position}")

    def first_gradient_of(self, variable: Any) -> Array | None:
        """Weight gradient through this call's own loop."""
        position = next(index for index, one in enumerate(self.layer.weights) if one is variable)
        return self._first(f"weight_{position}")

    def first_input_gradient(self) -> Array | None:
        """Input gradient through this call's own loop."""
        return self._first("half_input") if len(self.call.inside) > 1 else self._first("input")

    def tap(self, place: int, name: str) -> Array | None:
        """Gradient at the taps of one inner cell, in input time."""
        gradient = self._second(f"tap_{place}.{name}")
        return None if gradient is None else self.in_input_time(gradient)

    def initial_gradient(self, state: int) -> Array | None:
        """Gradient of a state before the first step."""
        return self._second(f"initial_{state}")

    def initial(self, state: int) -> Array:
        """Return a state before the first step."""
        return numpy(self.first.tensors[self.call.key(f"initial_{state}", self.part)])

    def in_input_time(self, by_time: Array) -> Array:
        """(time, sample, …) in processing order to (sample, time, …) in input time."""
        array = numpy(by_time).swapaxes(0, 1)
        return array[:, ::-1] if self.layer.go_backwards else array

    def _first(self, name: str) -> Array | None:
        gradient = self.first.gradients.get(self.call.key(name, self.part))
        return None if gradient is None else numpy(gradient)

    def _second(self, key: str) -> Array | None:
        gradient = self.second.gradients.get(key)
        return None if gradient is None else numpy(gradient)


def solved_records(direction: Direction) -> tuple[SolvedRecord, ...]:
    """One record for each inner cell of the layer, the lowest first."""
    parts = inner_cells(direction.layer.cell)
    firsts = [sum(len(state_names(part)) for part in parts[:place]) for place in range(len(parts))]
    return tuple(
        _record(direction, place, cell, first)
        for place, (cell, first) in enumerate(zip(parts, firsts, strict=True))
    )


def _record(direction: Direction, place: int, cell: Any, first_state: int) -> SolvedRecord:
    arrays = _values(direction, place, cell)
    if direction.second.gradients:
        arrays |= _state_gradients(direction, place, cell, first_state, arrays)
        arrays |= _gate_gradient(direction, place, cell, arrays)
        arrays |= _input_gradient(direction, place)
        arrays |= weights.of_cell(cell, direction.gradient_of, "_gradient")
    return SolvedRecord(
        arrays=arrays,
        weight_gradients=weights.of_cell(cell, direction.first_gradient_of, "_gradient"),
        # Time is certified where the layer's input enters; cells above share the loop.
        input_gradient=direction.first_input_gradient() if place == 0 else None,
        initial=tuple(direction.initial(first_state + k) for k in range(len(state_names(cell)))),
        hidden_before=_hidden_before(direction, place, cell, first_state, arrays),
    )


def _values(direction: Direction, place: int, cell: Any) -> dict[str, Array]:
    names = ["input", *state_names(cell)]
    if gate_names(cell) and standard_kind(cell) not in _NO_GATES:
        names.append("gate_activation")
    return {name: direction.in_input_time(direction.second.tensors[f"{place}.{name}"]) for name in names}


def _state_gradients(
    direction: Direction, place: int, cell: Any, first_state: int, values: dict[str, Array]
) -> dict[str, Array]:
    arrays = {}
    for position, name in enumerate(state_names(cell), first_state):
        zeros = np.zeros_like(values[name])
        tap, initial = direction.tap(place, name), direction.initial_gradient(position)
        arrays[f"{name}_gradient"] = zeros if tap is None else tap
        arrays[f"initial_{name}_gradient"] = zeros[:, 0] if initial is None else initial
    return arrays


def _gate_gradient(
    direction: Direction, place: int, cell: Any, values: Mapping[str, Array]
) -> dict[str, Array]:
    gates = {}
    for gate in gate_names(cell):
        tap = direction.tap(place, gate)
        gates[gate] = np.zeros_like(values["hidden"]) if tap is None else tap
    if not gates:
        return {}
    _warn_of_flat_activations(direction.layer, cell, gates, values)
    arrays = list(gates.values())
    return {"gate_gradient": arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=2)}


def _warn_of_flat_activations(
    layer: Any, cell: Any, gates: Mapping[str, Array], values: Mapping[str, Array]
) -> None:
    """Say so where a gradient arrives at the state and none passes an activation."""
    for attribute, places in gates_of(cell).items():
        if values["hidden_gradient"].any() and not any(gates[gate].any() for gate in places):
            name = activation_name(cell, getattr(cell, attribute))
            warnings.warn(
                f"No gradient passes the {attribute} of {layer.name}, {name}: dL/dz is 0 at every step, and "
                "dL/dh is not. Is it differentiable?",
                ThroughTimeWarning,
                stacklevel=2,
            )


def _input_gradient(direction: Direction, place: int) -> dict[str, Array]:
    if place == 0:
        gradient = direction.second.gradients.get("input")
        return {} if gradient is None else {"input_gradient": numpy(gradient)}
    tap = direction.tap(place, BETWEEN)
    return {} if tap is None else {"input_gradient": tap}


def _hidden_before(
    direction: Direction, place: int, cell: Any, first_state: int, arrays: dict[str, Array]
) -> Array | None:
    """h_{t-1} as it met the recurrent kernel of a cell whose product with it is a matrix product."""
    if standard_kind(cell) not in ("lstm", "gru", "simple_rnn"):
        return None
    initial, hidden = direction.initial(first_state)[:, None], arrays["hidden"]
    if direction.layer.go_backwards:
        before = np.concatenate([hidden[:, 1:], initial], axis=1)
    else:
        before = np.concatenate([initial, hidden[:, :-1]], axis=1)
    return _dropped(before, _recurrent_dropout(direction, place))


def _recurrent_dropout(direction: Direction, place: int) -> list[Array]:
    """Masks of the recurrent dropout (sample, time, unit) in input time, one or one a gate."""
    dropout = direction.call.inside[direction.part].dropout
    keys = dropout[place].get(RECURRENT, []) if dropout else []
    masks = [numpy(direction.first.tensors[key]) for key in keys]
    return [mask[:, ::-1] for mask in masks] if direction.layer.go_backwards else masks


def _dropped(before: Array, masks: list[Array]) -> Array:
    """Apply the mask, or one for each gate."""
    if not masks:
        return before
    if len(masks) > 1:
        return np.stack([before * one for one in masks], axis=2)
    dropped: Array = before * masks[0]
    return dropped
