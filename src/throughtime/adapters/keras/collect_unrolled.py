"""Reads what `unrolled` found of one direction, for `adapters/solved` to make records of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from throughtime._record import Array, SolvedRecord
from throughtime.adapters import solved

from . import weights
from .arrays import numpy
from .cell import gate_names, gates_of, inner_cells, standard_kind, state_names
from .inside import activation_name
from .program import Program, Result, Seen, all_variables


@dataclass(frozen=True)
class Direction:
    """One unrolled direction of one call, with both passes' results; see `solved.Direction`."""

    model: Any
    layer: Any
    seen: Seen
    part: int
    program: Program
    first: Result
    second: Result

    @property
    def has_gradients(self) -> bool:
        """Whether anything arrives from the loss."""
        return bool(self.second.gradients)

    def value(self, place: int, name: str) -> Array:
        """Return the input, a state or the gates of an inner cell."""
        return self._in_input_time(self.second.tensors[f"{place}.{name}"])

    def tap(self, place: int, name: str) -> Array | None:
        """Return the gradient at a tap of an inner cell."""
        gradient = self.second.gradients.get(f"tap_{place}.{name}")
        return None if gradient is None else self._in_input_time(gradient)

    def input_gradient(self) -> Array | None:
        """Return the gradient of the layer's input, through the unrolled layer."""
        return self._second("input")

    def initial(self, state: int) -> Array:
        """Return a state before the first step."""
        return numpy(self.first.tensors[self.seen.key(f"initial_{state}", self.part)], copy=True)

    def initial_gradient(self, state: int) -> Array | None:
        """Return its gradient."""
        return self._second(f"initial_{state}")

    def gradient_of(self, variable: Any) -> Array | None:
        """Return a weight's gradient through the unrolled layer."""
        positions = {id(variable): index for index, variable in enumerate(all_variables(self.model))}
        return self._second(f"variable.{positions[id(variable)]}")

    def first_gradient_of(self, variable: Any) -> Array | None:
        """Return a weight's gradient through this call's own loop."""
        position = next(index for index, one in enumerate(self.layer.weights) if one is variable)
        return self._first(f"weight_{position}")

    def first_input_gradient(self) -> Array | None:
        """Return the input's gradient through this call's own loop."""
        return self._first("half_input") if len(self.seen.inside) > 1 else self._first("input")

    def recurrent_dropout(self, place: int) -> list[Array]:
        """Return the masks of the recurrent dropout, (sample, 1, unit), one or one a gate."""
        dropout = self.seen.inside[self.part].dropout
        keys = keras.tree.flatten(dropout[place][1]) if dropout else []
        return [numpy(self.first.tensors[key])[:, None] for key in keys if key is not None]

    def _first(self, name: str) -> Array | None:
        gradient = self.first.gradients.get(self.seen.key(name, self.part))
        return None if gradient is None else numpy(gradient)

    def _second(self, key: str) -> Array | None:
        gradient = self.second.gradients.get(key)
        return None if gradient is None else numpy(gradient)

    def _in_input_time(self, by_time: Any) -> Array:
        """(time, sample, …) in processing order to (sample, time, …) in input time."""
        array = numpy(by_time).swapaxes(0, 1)
        return array[:, ::-1] if self.layer.go_backwards else array


def solved_records(direction: Direction) -> tuple[SolvedRecord, ...]:
    """One record for each inner cell of the layer, the lowest first."""
    return solved.solved_records(direction, [_inner(cell) for cell in inner_cells(direction.layer.cell)])


def _inner(cell: Any) -> solved.InnerCell:
    return solved.InnerCell(
        kind=standard_kind(cell),
        states=state_names(cell),
        gates=gate_names(cell),
        activations={
            attribute: (activation_name(getattr(cell, attribute)), places)
            for attribute, places in gates_of(cell).items()
        },
        weights=lambda values, suffix: weights.of_cell(cell, values, suffix),
    )
