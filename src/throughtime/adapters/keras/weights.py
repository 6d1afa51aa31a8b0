"""Gives a layer's weights their names; `cell_weights` those of Keras' cells one orientation."""

from __future__ import annotations

import re
from typing import Any

from throughtime.adapters.records import Array

from . import cell as cells
from . import cudnn
from .cell_weights import Values, both, gated, known
from .dialect import Dialect
from .gates import GATED
from .library import is_a
from .names import to_snake_case


def kind(keras: Dialect, layer: Any) -> str:
    """Return the schema's word for a layer's cell, the class name in snake case for other layers."""
    if is_a(layer, "Bidirectional"):
        forward, backward = kind(keras, layer.forward_layer), kind(keras, layer.backward_layer)
        return forward if forward == backward else "rnn"
    if cudnn.kind(layer):
        return cudnn.kind(layer)
    if is_a(layer, "RNN"):
        return kind_of_cell(keras, layer.cell)
    return to_snake_case(type(layer).__name__)


def kind_of_cell(keras: Dialect, cell: Any) -> str:
    """`lstm`, `gru`, `simple_rnn` or `conv_lstm` for a cell with Keras' own step, `rnn` for any other."""
    return cells.standard_kind(cell) or "rnn"


def directions(keras: Dialect, layer: Any) -> tuple[str, ...]:
    """Both directions of a Bidirectional whose halves are alike and can share an axis."""
    if not is_a(layer, "Bidirectional"):
        return ()
    halves = (layer.forward_layer, layer.backward_layer)
    shapes = [[keras.shape_of(v) for v in half.weights] for half in halves]
    cells = [type(getattr(half, "cell", None)) for half in halves]
    return ("forward", "backward") if cells[0] is cells[1] and shapes[0] == shapes[1] else ()


def named(keras: Dialect, layer: Any, values: Values, suffix: str = "") -> dict[str, Array]:
    """Read a layer's weights, or what belongs to each of them, by name.

    Parameters
    ----------
    values : callable
        Takes a variable, returns the array wanted for it: its value or its gradient.
    suffix : str
        Appended to each name, `_gradient`.
    """
    if is_a(layer, "Bidirectional"):
        halves = [named(keras, half, values, suffix) for half in (layer.forward_layer, layer.backward_layer)]
        return both(*halves, alike=bool(directions(keras, layer)))
    if cudnn.kind(layer):
        return cudnn.named(layer, values, suffix)
    if kind(keras, layer) in GATED:
        return of_cell(keras, layer.cell, values, suffix)
    return known(_by_own_name(keras, layer), values, suffix)


def of_cell(keras: Dialect, cell: Any, values: Values, suffix: str = "") -> dict[str, Array]:
    """Read the weights of one cell, as `named` does those of a layer."""
    kind = kind_of_cell(keras, cell)
    if kind in GATED:
        return gated(cell, GATED[kind], values, suffix)
    return known(_by_own_name(keras, cell), values, suffix)


def _by_own_name(keras: Dialect, layer: Any) -> dict[str, Any]:
    """Name the weights of any layer: by the variable, and where that is taken by its path as well."""
    weights = getattr(layer, "weights", [])  # a cell need not be a layer
    paths = [keras.path_of(variable) for variable in weights]
    names = [re.sub(r"\W", "_", path.rpartition("/")[2]) for path in paths]
    chosen = [
        name if names.count(name) == 1 else re.sub(r"\W", "_", path)
        for name, path in zip(names, paths, strict=True)
    ]
    if len(set(chosen)) < len(chosen):  # Keras 2 lets weights share a whole path
        chosen = [f"{name}_{k}" for k, name in enumerate(chosen)]
    return dict(zip(chosen, weights, strict=True))
