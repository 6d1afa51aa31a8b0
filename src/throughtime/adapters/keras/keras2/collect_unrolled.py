"""Reads what `unrolled` found of one direction, for `adapters/solved` to make records of."""

from __future__ import annotations

from typing import Any

from throughtime._record import Array, SolvedRecord
from throughtime.adapters.keras import solved

from . import weights
from .arrays import is_float, numpy
from .cell import gate_names, gates_of, inner_cells, standard_kind, state_names
from .dropout import RECURRENT
from .ways import activation_name


class Direction(solved.Direction):
    """One unrolled direction of one call, with both passes' results."""

    def array(self, tensor: Any) -> Array:
        """Bring a tensor to NumPy."""
        return numpy(tensor)

    def initial(self, state: int) -> Array:
        """Return a state before the first step."""
        return numpy(self.first.tensors[self.call.key(f"initial_{state}", self.part)])

    def gradient_of(self, variable: Any) -> Array | None:
        """Return a weight's gradient through the unrolled layer."""
        floats = [weight for weight in self.layer.weights if is_float(weight.dtype)]
        position = next((k for k, each in enumerate(floats) if each is variable), None)
        return self.through_unrolled(f"variable.{position}")

    def recurrent_dropout(self, place: int) -> list[Array]:
        """Return the masks of the recurrent dropout, (sample, time, unit), one or one a gate."""
        dropout = self.call.inside[self.part].dropout
        keys = dropout[place].get(RECURRENT, []) if dropout else []
        masks = [numpy(self.first.tensors[key]) for key in keys]
        return [mask[:, ::-1] for mask in masks] if self.layer.go_backwards else masks


def solved_records(direction: Direction) -> tuple[SolvedRecord, ...]:
    """One record for each inner cell of the layer, the lowest first."""
    return solved.solved_records(direction, [_inner(cell) for cell in inner_cells(direction.layer.cell)])


def _inner(cell: Any) -> solved.InnerCell:
    return solved.InnerCell(
        kind=standard_kind(cell),
        states=state_names(cell),
        gates=gate_names(cell),
        activations={
            attribute: (activation_name(cell, getattr(cell, attribute)), places)
            for attribute, places in gates_of(cell).items()
        },
        weights=lambda values, suffix: weights.of_cell(cell, values, suffix),
    )
