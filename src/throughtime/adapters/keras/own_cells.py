"""Finds the registered cell of a layer, and compares the layer with what is registered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from throughtime._cell import Cell
from throughtime._cell_registry import cell_of_class
from throughtime._errors import CellError
from throughtime._vocabulary import RESERVED, WEIGHTS
from throughtime.adapters.records import Attribute

from .cell import standard_kind


def own_cell(layer: Any) -> Cell | None:
    """Find the registered cell that a recurrent layer is made of; None for Keras' own and unknown ones."""
    cell = getattr(layer, "cell", None)
    if cell is None or standard_kind(cell):
        return None
    return cell_of_class(type(cell))


def check(own: Cell, cell: Any, names: Sequence[str]) -> None:
    """Compare a layer's cell with what is registered about it.

    Parameters
    ----------
    names : sequence of str
        Of the layer's weights.

    Raises
    ------
    CellError
        Another number of states, or weights whose names the tree cannot tell apart.
    """
    name = type(cell).__name__
    sizes = cell.state_size
    sizes = sizes if isinstance(sizes, (list, tuple)) else [sizes]
    if len(sizes) != len(own.states) or not all(isinstance(size, int) for size in sizes):
        raise CellError(
            f"{name} has state_size {cell.state_size}, its registered cell {own.name!r} names the "
            f"states {', '.join(own.states)}. Give one name in states= for each state, in the order of "
            "state_size; each is a vector."
        )
    words = {form for state in own.states[1:] for form in (state, f"{state}_gradient")}
    taken = [each for each in names if each in (RESERVED - {*WEIGHTS} | words | {*own.settings})]
    taken += [each for each in names if names.count(each) > 1]
    if taken:
        raise CellError(
            f"{name} has weights named {', '.join(names)}, of which {', '.join(sorted({*taken}))} cannot be "
            "told apart from other weights, states, settings or variables of a tree. Give each a name of its "
            "own: add_weight(name=…)."
        )


def settings(own: Cell, cell: Any) -> dict[str, Attribute]:
    """Read the attributes of a cell that its registered mathematics depends on.

    Raises
    ------
    CellError
        There is no such attribute, or it is no number, string or function with a name.
    """
    return {name: _setting(own, cell, name) for name in own.settings}


def _setting(own: Cell, cell: Any, name: str) -> Attribute:
    value = getattr(cell, name, None)
    if isinstance(value, (bool, int)):
        return int(value)
    if isinstance(value, (float, str)):
        return value
    if callable(value) and hasattr(value, "__name__"):
        return str(value.__name__)
    raise CellError(
        f"settings of cell {own.name!r} names {name!r}; {type(cell).__name__}.{name} is {value!r}, expected "
        "a number, a string or a function with a name. Set it in the cell's __init__, or take it out of "
        "settings=."
    )
