"""Finds what a user has said about a Keras cell of their own, and holds it against the layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from throughtime._cell import Cell
from throughtime._cell_registry import cell_of_class
from throughtime._record import Attribute
from throughtime.adapters.keras import own_cells as own_cells_of_all

from .cell import standard_kind


def own_cell(layer: Any) -> Cell | None:
    """Find the registered cell that a recurrent layer is made of; None for Keras' own and unknown ones."""
    cell = getattr(layer, "cell", None)
    if cell is None or standard_kind(cell):
        return None
    return cell_of_class(type(cell))


def own_cells(layers: Iterable[Any]) -> tuple[Cell | None, ...]:
    """Find the registered cells of layers, of both halves of a Bidirectional: a trace depends on them."""
    halves = [
        (getattr(layer, "forward_layer", layer), getattr(layer, "backward_layer", None)) for layer in layers
    ]
    return tuple(own_cell(half) for pair in halves for half in pair)


def check_own_cell(own: Cell, layer: Any) -> None:
    """Hold what the layer has against what its registered cell says, see `adapters.own_cells.check`."""
    own_cells_of_all.check(own, layer.cell, [variable.name for variable in layer.weights])


def settings(layer: Any) -> dict[str, Attribute]:
    """Read the attributes of a layer's cell that its registered mathematics depends on."""
    own = own_cell(layer)
    return {} if own is None else own_cells_of_all.settings(own, layer.cell)
