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
from .program import all_variables


@dataclass(frozen=True)
class Direction(solved.Direction):
    """One unrolled direction of one call, with both passes' results."""

    model: Any

    def array(self, tensor: Any) -> Array:
        """Bring a tensor to NumPy."""
        return numpy(tensor)

    def initial(self, state: int) -> Array:
        """Return a state before the first step, in memory of its own."""
        return numpy(self.first.tensors[self.call.key(f"initial_{state}", self.part)], copy=True)

    def gradient_of(self, variable: Any) -> Array | None:
        """Return a weight's gradient through the unrolled layer."""
        positions = {id(variable): index for index, variable in enumerate(all_variables(self.model))}
        return self.through_unrolled(f"variable.{positions[id(variable)]}")

    def recurrent_dropout(self, place: int) -> list[Array]:
        """Return the masks of the recurrent dropout, (sample, 1, unit), one or one a gate."""
        dropout = self.call.inside[self.part].dropout
        keys = keras.tree.flatten(dropout[place][1]) if dropout else []
        return [numpy(self.first.tensors[key])[:, None] for key in keys if key is not None]


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
