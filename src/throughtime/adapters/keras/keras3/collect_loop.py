"""Reads what the loop and `every_step` found of one direction, for `adapters/solved` to make records of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from throughtime._record import Array, SolvedRecord
from throughtime.adapters.keras import solved
from throughtime.adapters.keras.solved import MATRIX_KINDS
from throughtime.adapters.keras.unrolling import GATES

from . import weights
from .arrays import numpy
from .cell import OF_GATES, gate_names, gates_of, inner_cells, standard_kind, state_names
from .inside import activation_name
from .program import all_variables

if TYPE_CHECKING:
    from .collect import Pass


@dataclass(frozen=True)
class Direction(solved.Direction):
    """One direction of one call, with what the loop gave and what its steps gave."""

    done: Pass

    @property
    def has_gradients(self) -> bool:
        """Whether anything arrives from the loss."""
        taps = (self.call.key(f"tap_{name}", self.part) for name in self.call.inside[self.part].kept)
        return any(tap in self.first.gradients for tap in taps)

    def array(self, tensor: Any) -> Array:
        """Bring a tensor to NumPy."""
        return numpy(tensor)

    def keeps(self, place: int, name: str) -> bool:
        """Whether a state was asked for or is needed."""
        return f"{place}.{name}" in self.call.inside[self.part].kept

    def value(self, place: int, name: str) -> Array:
        """Return the input, a state or the gates of an inner cell."""
        if name == "gate_activation":
            return super().value(place, name)
        if name == "input" and not place:
            return self.done.tensor(self.call.key("input"), copy=True)
        known = self.call.inside[self.part]
        source = known.handed_on[place - 1] if name == "input" else f"{place}.{name}"
        if source == known.output:
            return self._in_input_time(self.done.tensor(self.call.key("output")).swapaxes(0, 1))
        return self._in_input_time(self.done.tensor(self.call.key(f"loop_{source}", self.part)))

    def tap(self, place: int, name: str) -> Array | None:
        """Return the total derivative of a state or gate: from the loop, and within its step."""
        looped = self.done.gradient(self.call.key(f"tap_{place}.{name}", self.part))
        within = self.through_unrolled(f"tap_{place}.{name}")
        found = [gradient for gradient in (looped, within) if gradient is not None]
        return self._in_input_time(sum(found[1:], found[0])) if found else None

    def gate_taps(self, place: int, gates: Sequence[str], like: Array) -> Array | None:
        """Return the gradients at the gates of an inner cell (sample, time, gate, …)."""
        if not self.done.program.request.quantities & OF_GATES:
            return None
        found = self.tap(place, GATES)
        return (
            np.zeros((*like.shape[:2], len(gates), *like.shape[2:]), like.dtype) if found is None else found
        )

    def initial(self, state: int) -> Array:
        """Return a state before the first step, in memory of its own."""
        return self.done.tensor(self.call.key(f"initial_{state}", self.part), copy=True)

    def initial_gradient(self, state: int) -> Array | None:
        """Return the gradient of a state before the first step."""
        return self.done.gradient(self.call.key(f"initial_{state}", self.part))

    def gradient_of(self, variable: Any) -> Array | None:
        """Return a weight's gradient as the steps add it up."""
        positions = {id(one): index for index, one in enumerate(all_variables(self.done.model))}
        return self.through_unrolled(f"variable.{positions[id(variable)]}")

    def recurrent_dropout(self, place: int) -> list[Array]:
        """Return the masks of the recurrent dropout, (sample, 1, unit), one or one a gate."""
        dropout = self.call.inside[self.part].dropout
        keys = keras.tree.flatten(dropout[place][1]) if dropout else []
        return [self.done.tensor(key)[:, None] for key in keys if key is not None]


def solved_records(direction: Direction) -> tuple[SolvedRecord, ...]:
    """One record for each inner cell of the layer, the lowest first."""
    parts = inner_cells(direction.layer.cell)
    has_gates = any(name.endswith("gate_activation") for name in direction.second.tensors)
    records = solved.solved_records(direction, [_inner(cell, has_gates=has_gates) for cell in parts])
    error = direction.first.tensors.get(direction.call.key("loop_error", direction.part))
    found = None if error is None else float(numpy(error))
    return tuple(
        replace(record, output_error=found, kernel=_kernel(part, direction.done))
        for record, part in zip(records, parts, strict=True)
    )


def _kernel(cell: Any, done: Pass) -> Array | None:
    if standard_kind(cell) not in MATRIX_KINDS:
        return None
    return weights.of_cell(cell, done.value)["kernel"]


def _inner(cell: Any, *, has_gates: bool) -> solved.InnerCell:
    return solved.InnerCell(
        kind=standard_kind(cell),
        states=state_names(cell),
        gates=gate_names(cell) if has_gates else (),
        activations={
            attribute: (activation_name(getattr(cell, attribute)), places)
            for attribute, places in (gates_of(cell) if has_gates else {}).items()
        },
        weights=lambda values, suffix: weights.of_cell(cell, values, suffix),
    )
