"""Gives a Keras layer's weights their names; `cell_weights` those of Keras' cells one orientation."""

from __future__ import annotations

import re
from typing import Any

import keras

from throughtime._record import Array
from throughtime.adapters.keras.cell_weights import Values, both, gated, known
from throughtime.adapters.keras.gates import GATED
from throughtime.adapters.keras.names import to_snake_case

from .cell import standard_kind
from .own_cells import own_cell


def kind(layer: Any) -> str:
    """Return the schema's word for a layer's cell, the class name in snake case for other layers."""
    if isinstance(layer, keras.layers.Bidirectional):
        forward, backward = kind(layer.forward_layer), kind(layer.backward_layer)
        return forward if forward == backward else "rnn"
    if isinstance(layer, keras.layers.RNN):
        own = own_cell(layer)
        return kind_of_cell(layer.cell) if own is None else own.name
    return to_snake_case(type(layer).__name__)


def kind_of_cell(cell: Any) -> str:
    """`lstm`, `gru`, `simple_rnn` or `conv_lstm` for a cell with Keras' own step, `rnn` for any other."""
    return standard_kind(cell) or "rnn"


def directions(layer: Any) -> tuple[str, ...]:
    """Both directions of a Bidirectional whose halves are alike and can share an axis."""
    if not isinstance(layer, keras.layers.Bidirectional):
        return ()
    shapes = [[tuple(v.shape) for v in half.weights] for half in (layer.forward_layer, layer.backward_layer)]
    cells = [getattr(half, "cell", None) for half in (layer.forward_layer, layer.backward_layer)]
    alike = type(cells[0]) is type(cells[1]) and shapes[0] == shapes[1]
    return ("forward", "backward") if alike else ()


def named(layer: Any, values: Values, suffix: str = "") -> dict[str, Array]:
    """Read a layer's weights, or what belongs to each of them, by name.

    Parameters
    ----------
    values : callable
        Takes a variable, returns the array wanted for it: its value or its gradient.
    suffix : str
        Appended to each name, `_gradient`.
    """
    if isinstance(layer, keras.layers.Bidirectional):
        halves = [named(half, values, suffix) for half in (layer.forward_layer, layer.backward_layer)]
        return both(*halves, alike=bool(directions(layer)))
    if kind(layer) in GATED:
        return of_cell(layer.cell, values, suffix)
    return known(_by_own_name(layer), values, suffix)


def of_cell(cell: Any, values: Values, suffix: str = "") -> dict[str, Array]:
    """Read the weights of one cell, as `named` does those of a layer."""
    if kind_of_cell(cell) in GATED:
        return gated(cell, GATED[kind_of_cell(cell)], values, suffix)
    return known(_by_own_name(cell), values, suffix)


def _by_own_name(layer: Any) -> dict[str, Any]:
    """Name the weights of any layer: by the variable, and where that is taken by its path as well."""
    weights = getattr(layer, "weights", [])  # a cell need not be a layer
    names = [re.sub(r"\W", "_", variable.name) for variable in weights]
    paths = [re.sub(r"\W", "_", variable.path) for variable in weights]
    chosen = [name if names.count(name) == 1 else path for name, path in zip(names, paths, strict=True)]
    return dict(zip(chosen, weights, strict=True))
