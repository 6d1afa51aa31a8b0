"""Which layers compute which cell of one's own: registered by a function, or offered by an installed package.

The adapters ask by the class of a layer's cell, everything else by the kind that the tree names.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar, overload

from throughtime._arguments.rules import shown
from throughtime._cell import Cell
from throughtime._errors import CellError, ThroughTimeWarning

GROUP = "throughtime.cells"
LayerClass = TypeVar("LayerClass", bound=type)

_registered: dict[type, Cell] = {}
_offered: dict[str, Cell | None] = {}  # by the class's full name, None for an offer that failed


@overload
def register_cell(cell: Cell) -> Callable[[LayerClass], LayerClass]: ...
@overload
def register_cell(cell: Cell, layer_class: LayerClass) -> LayerClass: ...
def register_cell(cell: Cell, layer_class: Any = None) -> Any:
    """Say what a class of recurrent cell computes, so that captures look inside layers made of it.

    A package can offer a cell for somebody else's class without being imported, by an entry point of the
    group `throughtime.cells`: its name is the class's full name, its value the place of the `Cell`. It is
    loaded when a capture first meets that class.

    Parameters
    ----------
    cell : Cell
    layer_class : class, optional
        What goes into the framework's generic layer, as in `keras.layers.RNN(LayerClass(8))`. Subclasses that
        keep its `call` count as well. Without it the result decorates the class.

    Returns
    -------
    class, or a decorator that returns the class it is given

    Raises
    ------
    CellError
        `cell` is no `Cell`, `layer_class` is no class, or the cell's name is taken by another class.

    Examples
    --------
    >>> import keras
    >>> class DecayCell(keras.layers.Layer):
    ...     def call(self, x, states): ...
    >>> decay = Cell(name="decay", replay=lambda *step: ..., adjoint=lambda *step: ...)
    >>> register_cell(decay, DecayCell).__name__
    'DecayCell'
    >>> unregister_cell(DecayCell)
    """
    if not isinstance(cell, Cell):
        raise CellError(
            f"register_cell takes a throughtime.Cell first, got {cell!r}. As a decorator it is called with "
            "the cell: @tt.register_cell(my_cell)."
        )
    if layer_class is None:
        return lambda decorated: register_cell(cell, decorated)
    if not isinstance(layer_class, type) or not callable(getattr(layer_class, "call", None)):
        raise CellError(
            f"The cell {cell.name!r} belongs to a class with a method call(inputs, states), got "
            f"{layer_class!r}. Pass the class of the layer's cell, not one of its instances."
        )
    # A notebook's cell that runs again makes the class anew: the older one gives way.
    same = [known for known in _registered if _full_name(known) == _full_name(layer_class)]
    others = {known.name: other for other, known in _registered.items() if other not in same}
    if cell.name in others and _registered[others[cell.name]] is not cell:
        raise CellError(
            f"The name {cell.name!r} is taken by the cell of {_full_name(others[cell.name])}. Choose "
            "another, or call tt.unregister_cell with that class first."
        )
    for known in same:
        del _registered[known]
    _registered[layer_class] = cell
    return layer_class


def unregister_cell(layer_class: type) -> None:
    """Forget what a class of recurrent cell computes.

    Parameters
    ----------
    layer_class : class
        As passed to `register_cell`.

    Returns
    -------
    None

    Raises
    ------
    CellError
        The class is not registered.

    Examples
    --------
    >>> class DecayCell:
    ...     def call(self, x, states): ...
    >>> decay = Cell(name="decay", replay=lambda *step: ..., adjoint=lambda *step: ...)
    >>> unregister_cell(register_cell(decay, DecayCell))
    """
    if not isinstance(layer_class, type) or layer_class not in _registered:
        known = ", ".join(_full_name(each) for each in _registered) or "none"
        raise CellError(f"{shown(layer_class)} is not registered. Registered classes: {known}.")
    del _registered[layer_class]


def cell_of_class(layer_class: type) -> Cell | None:
    """Find the cell that a class computes, None for a class that nobody has described."""
    for base in layer_class.__mro__:
        found = _registered.get(base) or _offer(_full_name(base))
        if found is not None:
            return found if _call(layer_class) is _call(base) else None
    return None


def cell_of_kind(kind: object) -> Cell | None:
    """Find the cell that the tree calls by this name, None where there is none of one's own."""
    every = (*_registered.values(), *_offered.values())
    return next((cell for cell in every if cell is not None and cell.name == kind), None)


def required_cell(kind: object) -> Cell:
    """Find the cell that the tree calls by this name, among what installed packages offer as well.

    Raises
    ------
    CellError
        There is none: the tree was captured where its cell was registered, and here it is not.
    """
    if cell_of_kind(kind) is None:
        for name in _entry_points():
            _offer(name)
    found = cell_of_kind(kind)
    if found is None:
        raise CellError(
            f"The mathematics of a layer of kind {kind!r} is not known here. Import the file that registers "
            "its cell with tt.register_cell, or install the package that offers it."
        )
    return found


def further_states() -> frozenset[str]:
    """Names of all states beyond `hidden` that known cells have."""
    every = (*_registered.values(), *_offered.values())
    return frozenset(state for cell in every if cell is not None for state in cell.states[1:])


def _offer(name: str) -> Cell | None:
    """Load what an installed package offers for a class, once."""
    if name in _entry_points() and name not in _offered:
        _offered[name] = _loaded(_entry_points()[name])
    return _offered.get(name)


def _loaded(entry: EntryPoint) -> Cell | None:
    """Load an offer; another package's mistake costs its own cell and no capture."""
    try:
        cell = entry.load()
    except Exception as error:  # whatever importing somebody else's module raises
        reason = f"{type(error).__name__}: {error}"
    else:
        if isinstance(cell, Cell):
            return cell
        reason = f"it is a {type(cell).__name__}, expected a throughtime.Cell"
    warnings.warn(
        f"The entry point {entry.value!r} that offers a cell for {entry.name} does not load ({reason}); such "
        "layers are captured without it. Correct the package that declares it, or uninstall it.",
        ThroughTimeWarning,
        stacklevel=2,
    )
    return None


@cache
def _entry_points() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _full_name(layer_class: type) -> str:
    return f"{layer_class.__module__}.{layer_class.__qualname__}"


def _call(layer_class: type) -> Any:
    return getattr(layer_class, "call", None)
