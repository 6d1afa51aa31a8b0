"""Finds what a user has said about a Keras 2 cell of their own, and holds it against the layer."""

from __future__ import annotations

from typing import Any

from throughtime._cell import Cell
from throughtime._cell_registry import cell_of_class
from throughtime._record import Attribute
from throughtime.adapters.keras import own_cells

from .cell import standard_kind, weight_name


def own_cell(layer: Any) -> Cell | None:
    """Find the registered cell that a recurrent layer is made of; None for Keras' own and unknown ones."""
    cell = getattr(layer, "cell", None)
    if cell is None or standard_kind(cell):
        return None
    return cell_of_class(type(cell))


def check_own_cell(own: Cell, layer: Any) -> None:
    """Hold what the layer has against what its registered cell says, see `adapters.own_cells.check`."""
    own_cells.check(own, layer.cell, [weight_name(variable) for variable in layer.weights])


def settings(layer: Any) -> dict[str, Attribute]:
    """Read the attributes of a layer's cell that its registered mathematics depends on."""
    own = own_cell(layer)
    return {} if own is None else own_cells.settings(own, layer.cell)
