"""Collects what `unrolled` found of one direction into records: one for each inner cell, in input time."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from throughtime._errors import ThroughTimeWarning
from throughtime._record import Array, SolvedRecord

from . import weights
from .arrays import numpy
from .cell import gate_names, gates_of, inner_cells, standard_kind, state_names
from .inside import activation_name
from .program import Program, Result, Seen, all_variables
from .unrolled import BETWEEN

_NO_GATES = ("simple_rnn",)  # its only gate is its state


@dataclass(frozen=True)
class Direction:
    """One unrolled direction of one call, with both passes' results."""

    model: Any
    layer: Any
    seen: Seen
    part: int
    program: Program
    first: Result
    second: Result

    def gradient_of(self, variable: Any) -> Array | None:
        """Weight gradient through the unrolled layer."""
        positions = {id(variable): index for index, variable in enumerate(all_variables(self.model))}
        gradient = self.second.gradients.get(f"variable.{positions[id(variable)]}")
        return None if gradient is None else numpy(gradient)

    def first_gradient_of(self, variable: Any) -> Array | None:
        """Weight gradient through this call's own loop."""
        position = next(index for index, one in enumerate(self.layer.weights) if one is variable)
        gradient = self.first.gradients.get(self.seen.key(f"weight_{position}", self.part))
        return None if gradient is None else numpy(gradient)

    def first_input_gradient(self) -> Array | None:
        """Input gradient through this call's own loop."""
        name = "half_input" if len(self.seen.inside) > 1 else "input"
        gradient = self.first.gradients.get(self.seen.key(name, self.part))
        return None if gradient is None else numpy(gradient)

    def in_input_time(self, by_time: Any) -> Array:
        """(time, sample, …) in processing order to (sample, time, …) in input time."""
        array = numpy(by_time).swapaxes(0, 1)
        return array[:, ::-1] if self.layer.go_backwards else array


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
        initial=tuple(_initial(direction, first_state + k) for k in range(len(state_names(cell)))),
        hidden_before=_hidden_before(direction, place, cell, first_state, arrays),
    )


def _values(direction: Direction, place: int, cell: Any) -> dict[str, Array]:
    tensors = direction.second.tensors
    names = ["input", *state_names(cell)]
    if gate_names(cell) and standard_kind(cell) not in _NO_GATES:
        names.append("gate_activation")
    return {name: direction.in_input_time(tensors[f"{place}.{name}"]) for name in names}


def _state_gradients(
    direction: Direction, place: int, cell: Any, first_state: int, values: dict[str, Array]
) -> dict[str, Array]:
    gradients, arrays = direction.second.gradients, {}
    for position, name in enumerate(state_names(cell), first_state):
        zeros = np.zeros_like(values[name])
        tap, initial = gradients.get(f"tap_{place}.{name}"), gradients.get(f"initial_{position}")
        arrays[f"{name}_gradient"] = zeros if tap is None else direction.in_input_time(tap)
        arrays[f"initial_{name}_gradient"] = zeros[:, 0] if initial is None else numpy(initial)
    return arrays


def _gate_gradient(
    direction: Direction, place: int, cell: Any, values: Mapping[str, Array]
) -> dict[str, Array]:
    taps = {gate: direction.second.gradients.get(f"tap_{place}.{gate}") for gate in gate_names(cell)}
    if not taps:
        return {}
    gates = {
        gate: np.zeros_like(values["hidden"]) if tap is None else direction.in_input_time(tap)
        for gate, tap in taps.items()
    }
    _warn_of_flat_activations(direction.layer, cell, gates, values)
    arrays = list(gates.values())
    return {"gate_gradient": arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=2)}


def _warn_of_flat_activations(
    layer: Any, cell: Any, gates: Mapping[str, Array], values: Mapping[str, Array]
) -> None:
    """Say so where a gradient arrives at the state and none passes an activation."""
    for attribute, places in gates_of(cell).items():
        if values["hidden_gradient"].any() and not any(gates[gate].any() for gate in places):
            name = activation_name(getattr(cell, attribute))
            warnings.warn(
                f"No gradient passes the {attribute} of {layer.name}, {name}: dL/dz is 0 at every step, and "
                "dL/dh is not. Is it differentiable?",
                ThroughTimeWarning,
                stacklevel=2,
            )


def _input_gradient(direction: Direction, place: int) -> dict[str, Array]:
    gradients = direction.second.gradients
    if place == 0:
        return {"input_gradient": numpy(gradients["input"])} if "input" in gradients else {}
    tap = gradients.get(f"tap_{place}.{BETWEEN}")
    return {} if tap is None else {"input_gradient": direction.in_input_time(tap)}


def _initial(direction: Direction, state: int) -> Array:
    return numpy(direction.first.tensors[direction.seen.key(f"initial_{state}", direction.part)], copy=True)


def _hidden_before(
    direction: Direction, place: int, cell: Any, first_state: int, arrays: dict[str, Array]
) -> Array | None:
    """h_{t-1} as it met the recurrent kernel of a cell whose product with it is a matrix product."""
    if standard_kind(cell) not in ("lstm", "gru", "simple_rnn"):
        return None
    initial = _initial(direction, first_state)[:, None]
    hidden = arrays["hidden"]
    if direction.layer.go_backwards:
        before = np.concatenate([hidden[:, 1:], initial], axis=1)
    else:
        before = np.concatenate([initial, hidden[:, :-1]], axis=1)
    return _dropped(before, _recurrent_dropout(direction, place))


def _recurrent_dropout(direction: Direction, place: int) -> Any:
    dropout = direction.seen.inside[direction.part].dropout
    if not dropout:
        return None
    tensors = direction.first.tensors
    return keras.tree.map_structure(
        lambda key: None if key is None else numpy(tensors[key]), dropout[place][1]
    )


def _dropped(before: Array, mask: Any) -> Array:
    """Apply the mask, or one for each gate."""
    if mask is None:
        return before
    if isinstance(mask, (list, tuple)):
        return np.stack([before * one[:, None] for one in mask], axis=2)
    dropped: Array = before * mask[:, None]
    return dropped
