"""Records of a direction that ran in the loop: one for each inner cell, in input time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from throughtime._errors import warn
from throughtime.adapters.marking import MarkedSteps, of_steps
from throughtime.adapters.records import Array, Request, SolvedRecord

from . import cell as cells
from . import weights
from .dialect import Dialect
from .every_step import BETWEEN, GATES, OF_GATES
from .gates import gates_of
from .loop import MARKED
from .seen import Result, SeenCall

_NO_GATES = ("simple_rnn",)  # its only gate is its state
_MATRIX_KINDS = ("lstm", "gru", "simple_rnn")


class Finished(Protocol):
    """A finished pass: `keras` is what it ran in, `request` what was asked for."""

    @property
    def keras(self) -> Dialect:
        """The Keras of its layers."""

    @property
    def request(self) -> Request:
        """What was asked for."""

    def tensor(self, key: str, *, copy: bool = False) -> Array:
        """Bring one tensor to NumPy."""

    def gradient(self, key: str) -> Array | None:
        """Bring the gradient of one tensor to NumPy; None where there is none."""

    def value(self, variable: Any) -> Array:
        """Bring a weight to NumPy."""

    def array(self, tensor: Any) -> Array:
        """Bring what a second pass found to NumPy."""

    def number(self, variable: Any) -> int:
        """Return the number by which every pass knows a variable."""


@dataclass(frozen=True)
class Direction:
    """One direction of one call, with what the loop gave and what its steps gave.

    Arrays are in input time, (sample, time, …).

    Attributes
    ----------
    done : Finished
    layer : the recurrent layer
    call : SeenCall
    part : int
        Which direction of the call.
    second : Result
        What lies within the steps.
    """

    done: Finished
    layer: Any
    call: SeenCall
    part: int
    second: Result

    def key(self, name: str) -> str:
        """Name one tensor of this direction."""
        return self.call.key(name, self.part)

    @property
    def has_gradients(self) -> bool:
        """Whether anything arrives from the loss."""
        kept = self.call.inside[self.part].kept
        return any(self.done.gradient(self.key(f"tap_{name}")) is not None for name in kept)

    def keeps(self, place: int, name: str) -> bool:
        """Whether a state was asked for or is needed."""
        return f"{place}.{name}" in self.call.inside[self.part].kept

    def value(self, place: int, name: str) -> Array:
        """Return the input, a state or the gates of an inner cell."""
        if name == "gate_activation":
            return self._in_input_time(self.done.array(self.second.tensors[f"{place}.{name}"]))
        if name == "input" and not place:
            return self.done.tensor(self.call.key("input"), copy=True)
        known = self.call.inside[self.part]
        source = known.handed_on[place - 1] if name == "input" else f"{place}.{name}"
        if source == known.output:
            return self._in_input_time(self.done.tensor(self.call.key("output")).swapaxes(0, 1))
        return self._in_input_time(self.done.tensor(self.key(f"loop_{source}")))

    def tap(self, place: int, name: str) -> Array | None:
        """Return the total derivative of a state or gate: from the loop, and within its step."""
        looped = self.done.gradient(self.key(f"tap_{place}.{name}"))
        within = self.within(f"tap_{place}.{name}")
        found = [gradient for gradient in (looped, within) if gradient is not None]
        return self._in_input_time(sum(found[1:], found[0])) if found else None

    def initial(self, state: int) -> Array:
        """Return a state before the first step, in memory of its own."""
        return self.done.tensor(self.key(f"initial_{state}"), copy=True)

    def gradient_of(self, variable: Any) -> Array | None:
        """Return a weight's gradient as the steps add it up."""
        return self.within(f"variable.{self.done.number(variable)}")

    def first_gradient_of(self, variable: Any) -> Array | None:
        """Return a weight's gradient through the loop."""
        position = next(index for index, one in enumerate(self.layer.weights) if one is variable)
        return self.done.gradient(self.key(f"weight_{position}"))

    def first_input_gradient(self) -> Array | None:
        """Return the input's gradient through the loop."""
        return self.done.gradient(self.key("half_input" if len(self.call.inside) > 1 else "input"))

    def within(self, key: str) -> Array | None:
        """Return a gradient that the second pass found."""
        gradient = self.second.gradients.get(key)
        return None if gradient is None else self.done.array(gradient)

    def recurrent_dropout(self, place: int) -> list[Array]:
        """Return what h_{t−1} was multiplied with, (sample, time or 1, unit), one or one a gate."""
        dropout = self.call.inside[self.part].dropout
        keys = self.done.keras.recurrent_masks(dropout[place]) if dropout else []
        masks = [self.done.tensor(key) for key in keys]
        # Masks of all steps are (time, sample, unit), those of any one step (sample, unit).
        return [self._in_input_time(mask) if mask.ndim > 2 else mask[:, None] for mask in masks]

    def _in_input_time(self, by_time: Array) -> Array:
        """(time, sample, …) in processing order to (sample, time, …) in input time."""
        array = by_time.swapaxes(0, 1)
        return array[:, ::-1] if self.layer.go_backwards else array


def solved_records(direction: Direction) -> tuple[SolvedRecord, ...]:
    """One record for each inner cell of the layer, the lowest first."""
    parts = cells.inner_cells(direction.layer.cell)
    counts = [len(cells.state_names(direction.done.keras, part)) for part in parts]
    return tuple(_record(direction, place, part, sum(counts[:place])) for place, part in enumerate(parts))


def _record(direction: Direction, place: int, cell: Any, first_state: int) -> SolvedRecord:
    done, keras = direction.done, direction.done.keras
    arrays = _values(direction, place, cell)
    if direction.has_gradients:
        arrays |= _state_gradients(direction, place, cell, first_state, arrays)
        arrays |= _gate_gradient(direction, place, cell, arrays)
        between = direction.within("input") if place == 0 else direction.tap(place, BETWEEN)
        arrays |= {} if between is None else {"input_gradient": between}
        arrays |= weights.of_cell(keras, cell, direction.gradient_of, "_gradient")
    is_product = cells.standard_kind(cell) in _MATRIX_KINDS
    marked = _marked(direction, place, cell)
    return SolvedRecord(
        arrays={**arrays, **marked.arrays},
        weight_gradients=weights.of_cell(keras, cell, direction.first_gradient_of, "_gradient"),
        # Time is certified where the layer's input enters; cells above share the loop.
        input_gradient=direction.first_input_gradient() if place == 0 else None,
        initial=tuple(direction.initial(first_state + k) for k in range(len(cells.state_names(keras, cell)))),
        hidden_before=_hidden_before(direction, place, first_state, arrays) if is_product else None,
        kernel=weights.of_cell(keras, cell, done.value)["kernel"] if is_product else None,
        output_error=_output_error(direction),
        gates=marked.gates,
        marks=marked.names,
    )


def _marked(direction: Direction, place: int, cell: Any) -> MarkedSteps:
    """Read what the author of a cell has named within its step."""
    keras, start = direction.done.keras, f"{place}.{MARKED}"
    kept = direction.call.inside[direction.part].kept
    names = [name.removeprefix(start) for name in kept if name.startswith(start)]
    if not names:
        return MarkedSteps()
    return of_steps(
        {name: direction.value(place, f"{MARKED}{name}") for name in names},
        {name: direction.tap(place, f"{MARKED}{name}") for name in names},
        {*cells.state_names(keras, cell), *weights.of_cell(keras, cell, direction.done.value)},
        has_gradients=direction.has_gradients,
    )


def _output_error(direction: Direction) -> float | None:
    """Relative error of the loop against the layer's own; None where they were not compared."""
    if not direction.call.inside[direction.part].is_compared:
        return None
    return float(direction.done.tensor(direction.key("loop_error")))


def _values(direction: Direction, place: int, cell: Any) -> dict[str, Array]:
    keras = direction.done.keras
    names = ["input", *(name for name in cells.state_names(keras, cell) if direction.keeps(place, name))]
    if f"{place}.gate_activation" in direction.second.tensors:
        names += [] if cells.standard_kind(cell) in _NO_GATES else ["gate_activation"]
    return {name: direction.value(place, name) for name in names}


def _state_gradients(
    direction: Direction, place: int, cell: Any, first_state: int, values: dict[str, Array]
) -> dict[str, Array]:
    arrays = {}
    for position, name in enumerate(cells.state_names(direction.done.keras, cell), first_state):
        if name not in values:
            continue
        zeros = np.zeros_like(values[name])
        tap, initial = (
            direction.tap(place, name),
            direction.done.gradient(direction.key(f"initial_{position}")),
        )
        arrays[f"{name}_gradient"] = zeros if tap is None else tap
        arrays[f"initial_{name}_gradient"] = zeros[:, 0] if initial is None else initial
    return arrays


def _gate_gradient(
    direction: Direction, place: int, cell: Any, values: Mapping[str, Array]
) -> dict[str, Array]:
    names = cells.gate_names(cell)
    is_asked = direction.done.request.quantities & OF_GATES
    if not names or not is_asked or f"{place}.gate_activation" not in direction.second.tensors:
        return {}
    stacked, like = direction.tap(place, GATES), values["hidden"]
    if stacked is None:
        stacked = np.zeros((*like.shape[:2], len(names), *like.shape[2:]), like.dtype)
    gates = {gate: stacked[:, :, position] for position, gate in enumerate(names)}
    _warn_of_flat_activations(direction, cell, gates, values)
    return {"gate_gradient": stacked if len(gates) > 1 else stacked[:, :, 0]}


def _warn_of_flat_activations(
    direction: Direction, cell: Any, gates: Mapping[str, Array], values: Mapping[str, Array]
) -> None:
    """Warn where a gradient arrives at the state and none passes an activation."""
    keras = direction.done.keras
    for attribute, places in gates_of(cells.standard_kind(cell)).items():
        if values["hidden_gradient"].any() and not any(gates[gate].any() for gate in places):
            name = keras.activation_name(cell, getattr(cell, attribute))
            warn(
                f"No gradient passes the {attribute} of {direction.layer.name}, {name}: dL/dz is 0 at every "
                "step, and dL/dh is not. Is it differentiable?"
            )


def _hidden_before(
    direction: Direction, place: int, first_state: int, arrays: Mapping[str, Array]
) -> Array | None:
    """h_{t-1} as it met the recurrent kernel of a cell whose product with it is a matrix product."""
    if "hidden" not in arrays:
        return None
    initial, hidden = direction.initial(first_state)[:, None], arrays["hidden"]
    if direction.layer.go_backwards:
        before = np.concatenate([hidden[:, 1:], initial], axis=1)
    else:
        before = np.concatenate([initial, hidden[:, :-1]], axis=1)
    masks = direction.recurrent_dropout(place)
    if len(masks) > 1:
        return np.stack([before * mask for mask in masks], axis=2)
    return before * masks[0] if masks else before
