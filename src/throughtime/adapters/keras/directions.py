"""Collects what is known inside one direction of a call into records for its cells, in input time.

A direction that ran in the loop has all of it from the framework; one that kept its own kernel, on torch, is
solved by `cells`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from throughtime._errors import warn
from throughtime.adapters.marking import MarkedSteps, of_steps
from throughtime.adapters.records import Array, DirectionRecord, SolvedRecord

from . import cell as cells
from . import weights
from .every_step import BETWEEN, GATES, OF_GATES
from .loop import MARKED
from .seen import SeenCall, SeenInside

if TYPE_CHECKING:
    from .collect import Pass

_NO_GATES = ("simple_rnn",)  # its only gate is its state
_MATRIX_KINDS = ("lstm", "gru", "simple_rnn")


def records(done: Pass, seen: SeenCall, part: int) -> tuple[DirectionRecord, ...] | tuple[SolvedRecord, ...]:
    """Make the record of a direction's cell, or one for each of its stacked cells, the lowest first."""
    direction = Direction(done, seen, part)
    if direction.known.is_closed:
        return (_closed(direction),)
    parts = cells.inner_cells(direction.layer.cell)
    counts = [len(cells.state_names(done.keras, cell)) for cell in parts]
    return tuple(_record(direction, place, cell, sum(counts[:place])) for place, cell in enumerate(parts))


@dataclass(frozen=True)
class Direction:
    """One direction of one call, with what the loop gave and what its steps gave.

    Arrays are in input time, (sample, time, …).

    Attributes
    ----------
    done : Pass
    call : SeenCall
    part : int
        Which direction of the call.
    """

    done: Pass
    call: SeenCall
    part: int

    @property
    def known(self) -> SeenInside:
        """What is known of it without its tensors."""
        return self.call.inside[self.part]

    @property
    def layer(self) -> Any:
        """The recurrent layer."""
        return self.known.layer()

    @property
    def is_half(self) -> bool:
        """Whether it is one of the two of a Bidirectional."""
        return len(self.call.inside) > 1

    def key(self, name: str) -> str:
        """Name one tensor of this direction."""
        return self.call.key(name, self.part)

    def gradient(self, name: str) -> Array | None:
        """Return the gradient of one tensor of this direction."""
        return self.done.gradient(self.key(name))

    def of_weight(self, variable: Any, start: str = "") -> Array | None:
        """Return a weight's gradient through the loop or kernel, or as the steps add it up: "within_"."""
        place = next(index for index, one in enumerate(self.layer.weights) if one is variable)
        return self.gradient(f"{start}weight_{place}")

    @property
    def has_gradients(self) -> bool:
        """Whether anything arrives from the loss."""
        return any(self.gradient(f"tap_{name}") is not None for name in self.known.kept)

    def keeps(self, place: int, name: str) -> bool:
        """Whether a state was asked for or is needed."""
        return f"{place}.{name}" in self.known.kept

    def value(self, place: int, name: str) -> Array:
        """Return the input, a state or the gates of an inner cell."""
        if name == "gate_activation":
            return self._in_input_time(self.done.tensor(self.key(f"within_{place}.{name}")))
        if name == "input" and not place:
            return self.done.tensor(self.call.key("input"), copy=True)
        source = self.known.handed_on[place - 1] if name == "input" else f"{place}.{name}"
        if source == self.known.output:
            return self._in_input_time(self.done.tensor(self.call.key("output")).swapaxes(0, 1))
        return self._in_input_time(self.done.tensor(self.key(f"loop_{source}")))

    def tap(self, place: int, name: str) -> Array | None:
        """Return the total derivative of a state or gate: from the loop, and within its step."""
        each = (self.gradient(f"{start}tap_{place}.{name}") for start in ("", "within_"))
        found = [gradient for gradient in each if gradient is not None]
        return self._in_input_time(sum(found[1:], found[0])) if found else None

    def initial(self, state: int) -> Array:
        """Return a state before the first step, in memory of its own."""
        return self.done.tensor(self.key(f"initial_{state}"), copy=True)

    def has_gates(self, place: int) -> bool:
        """Whether the gates of an inner cell were found."""
        return self.key(f"within_{place}.gate_activation") in self.done.result.tensors

    def recurrent_dropout(self, place: int) -> list[Array]:
        """Return what h_{t−1} was multiplied with, (sample, time or 1, unit), one or one a gate."""
        dropout = self.known.dropout
        keys = self.done.keras.recurrent_masks(dropout[place]) if dropout else []
        masks = [self.done.tensor(key) for key in keys]
        # Masks of all steps are (time, sample, unit), those of any one step (sample, unit).
        return [self._in_input_time(mask) if mask.ndim > 2 else mask[:, None] for mask in masks]

    def _in_input_time(self, by_time: Array) -> Array:
        """(time, sample, …) in processing order to (sample, time, …) in input time."""
        array = by_time.swapaxes(0, 1)
        return array[:, ::-1] if self.layer.go_backwards else array


def _closed(direction: Direction) -> DirectionRecord:
    """Bring what a kernel computed to input time."""
    done, seen, layer, known = direction.done, direction.call, direction.layer, direction.known
    flip = slice(None, None, -1 if layer.go_backwards else 1)
    output_gradient = direction.gradient("half_output" if direction.is_half else "output")
    if output_gradient is not None and output_gradient.ndim == 3:
        output_gradient = output_gradient[:, flip]
    sequence = direction.key("sequence")
    hidden = done.tensor(sequence if sequence in done.result.tensors else seen.key("output"))
    return DirectionRecord(
        weights=weights.named(done.keras, layer, done.value),
        weight_gradients=weights.named(done.keras, layer, direction.of_weight, "_gradient"),
        inputs=done.tensor(seen.key("input"), copy=True),
        hidden=hidden[:, flip],
        output_gradient=output_gradient,
        input_gradient=direction.gradient("half_input" if direction.is_half else "input"),
        valid=done.tensor(direction.key("inside_mask")).astype(bool) if known.has_mask else None,
        zero_output=done.keras.zeroes_masked_output(layer),
        runs_backward=bool(layer.go_backwards),
        initial=tuple(map(direction.initial, range(known.initial_states))) or (None, None),
        final_gradients=tuple(direction.gradient(f"state_{k}") for k in range(max(2, known.initial_states))),
    )


def _record(direction: Direction, place: int, cell: Any, first_state: int) -> SolvedRecord:
    done, keras = direction.done, direction.done.keras
    arrays = _values(direction, place, cell)
    if direction.has_gradients:
        arrays |= _state_gradients(direction, place, cell, first_state, arrays)
        arrays |= _gate_gradient(direction, place, cell, arrays)
        between = direction.tap(place, BETWEEN) if place else direction.gradient("within_input")
        arrays |= {} if between is None else {"input_gradient": between}
        arrays |= weights.of_cell(keras, cell, lambda v: direction.of_weight(v, "within_"), "_gradient")
    is_product = cells.standard_kind(cell) in _MATRIX_KINDS
    marked = _marked(direction, place, cell)
    entering = "half_input" if direction.is_half else "input"
    return SolvedRecord(
        arrays={**arrays, **marked.arrays},
        weight_gradients=weights.of_cell(keras, cell, direction.of_weight, "_gradient"),
        # Time is certified where the layer's input enters; cells above share the loop.
        input_gradient=direction.gradient(entering) if place == 0 else None,
        initial=tuple(direction.initial(first_state + k) for k in range(len(cells.state_names(keras, cell)))),
        hidden_before=_hidden_before(direction, place, first_state, arrays) if is_product else None,
        kernel=weights.of_cell(keras, cell, done.value)["kernel"] if is_product else None,
        output_error=float(done.tensor(direction.key("loop_error"))) if direction.known.is_compared else None,
        gates=marked.gates,
        marks=marked.names,
    )


def _marked(direction: Direction, place: int, cell: Any) -> MarkedSteps:
    """Read what the author of a cell has named within its step."""
    keras, start = direction.done.keras, f"{place}.{MARKED}"
    names = [name.removeprefix(start) for name in direction.known.kept if name.startswith(start)]
    if not names:
        return MarkedSteps()
    return of_steps(
        {name: direction.value(place, f"{MARKED}{name}") for name in names},
        {name: direction.tap(place, f"{MARKED}{name}") for name in names},
        {*cells.state_names(keras, cell), *weights.of_cell(keras, cell, direction.done.value)},
        has_gradients=direction.has_gradients,
    )


def _values(direction: Direction, place: int, cell: Any) -> dict[str, Array]:
    keras = direction.done.keras
    names = ["input", *(name for name in cells.state_names(keras, cell) if direction.keeps(place, name))]
    if direction.has_gates(place):
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
        tap, initial = direction.tap(place, name), direction.gradient(f"initial_{position}")
        arrays[f"{name}_gradient"] = zeros if tap is None else tap
        arrays[f"initial_{name}_gradient"] = zeros[:, 0] if initial is None else initial
    return arrays


def _gate_gradient(
    direction: Direction, place: int, cell: Any, values: Mapping[str, Array]
) -> dict[str, Array]:
    names = cells.gate_names(cell)
    is_asked = direction.done.program.request.quantities & OF_GATES
    if not names or not is_asked or not direction.has_gates(place):
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
    for attribute, places in cells.gates_by_activation(cell).items():
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
