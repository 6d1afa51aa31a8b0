"""Gives a Keras 2 layer's weights their names and one orientation: input rows, gates apart, units last.

Keras already keeps gates in the schema's order (LSTM i, f, c, o; GRU z, r, h), side by side in the last
axis; splitting that axis is all that is needed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from throughtime._record import Array
from throughtime.adapters.gates import GATED
from throughtime.adapters.names import to_snake_case

from . import cudnn
from .arrays import shape_of
from .cell import standard_kind, weight_name
from .library import is_a
from .own_cells import own_cell

# What stands for a variable: its value or its gradient; None where the loss does not reach it.
Values = Callable[[Any], Array | None]
Readers = Mapping[str, Values]  # by the suffix that the names get


def kind(layer: Any) -> str:
    """Return the schema's word for a layer's cell, the class name in snake case for other layers."""
    if is_a(layer, "Bidirectional"):
        forward, backward = kind(layer.forward_layer), kind(layer.backward_layer)
        return forward if forward == backward else "rnn"
    if cudnn.kind(layer):
        return cudnn.kind(layer)
    if is_a(layer, "RNN"):
        own = own_cell(layer)
        return kind_of_cell(layer.cell) if own is None else own.name
    return to_snake_case(type(layer).__name__)


def kind_of_cell(cell: Any) -> str:
    """`lstm`, `gru`, `simple_rnn` or `conv_lstm` for a cell with Keras' own step, `rnn` for any other."""
    return standard_kind(cell) or "rnn"


def directions(layer: Any) -> tuple[str, ...]:
    """Both directions of a Bidirectional whose halves are alike and can share an axis."""
    if not is_a(layer, "Bidirectional"):
        return ()
    halves = (layer.forward_layer, layer.backward_layer)
    shapes = [[shape_of(v) for v in half.weights] for half in halves]
    cells = [type(getattr(half, "cell", None)) for half in halves]
    return ("forward", "backward") if cells[0] is cells[1] and shapes[0] == shapes[1] else ()


def named(layer: Any, values: Values, suffix: str = "") -> dict[str, Array]:
    """Read a layer's weights, or what belongs to each of them, by name.

    Parameters
    ----------
    values : callable
        Takes a variable, returns the array wanted for it: its value or its gradient.
    suffix : str
        Appended to each name, `_gradient`.
    """
    if is_a(layer, "Bidirectional"):
        return _bidirectional(layer, values, suffix)
    if cudnn.kind(layer):
        return cudnn.named(layer, values, suffix)
    if kind(layer) in GATED:
        return of_cell(layer.cell, values, suffix)
    return _by_own_names(layer, values, suffix)


def of_cell(cell: Any, values: Values, suffix: str = "") -> dict[str, Array]:
    """Read the weights of one cell, as `named` does those of a layer."""
    if kind_of_cell(cell) in GATED:
        return _gated(cell, GATED[kind_of_cell(cell)], values, suffix)
    return _by_own_names(cell, values, suffix)


def _by_own_names(layer: Any, values: Values, suffix: str) -> dict[str, Array]:
    arrays = {f"{name}{suffix}": values(variable) for name, variable in _by_own_name(layer).items()}
    return {name: array for name, array in arrays.items() if array is not None}


def _bidirectional(layer: Any, values: Values, suffix: str) -> dict[str, Array]:
    forward, backward = (named(half, values, suffix) for half in (layer.forward_layer, layer.backward_layer))
    if directions(layer):
        return {name: np.stack([forward[name], backward[name]]) for name in forward if name in backward}
    return {
        **{f"forward_{name}": value for name, value in forward.items()},
        **{f"backward_{name}": value for name, value in backward.items()},
    }


def _gated(cell: Any, gates: int, values: Values, suffix: str) -> dict[str, Array]:
    arrays = {"kernel": values(cell.kernel), "recurrent_kernel": values(cell.recurrent_kernel)}
    bias = values(cell.bias) if cell.use_bias else None
    if bias is not None and bias.ndim == 2:
        # A GRU that resets after the product keeps one bias for each side.
        arrays["bias"], arrays["recurrent_bias"] = bias
    else:
        arrays["bias"] = bias
    return {f"{name}{suffix}": _split(array, gates) for name, array in arrays.items() if array is not None}


def _split(array: Array, gates: int) -> Array:
    return array if gates == 1 else array.reshape(*array.shape[:-1], gates, -1)


def _by_own_name(layer: Any) -> dict[str, Any]:
    """Name the weights of any layer: by the variable, and where that is taken with its scopes as well."""
    weights = getattr(layer, "weights", [])  # a cell need not be a layer
    names = [weight_name(variable) for variable in weights]
    paths = [re.sub(r"\W", "_", variable.name.partition(":")[0]) for variable in weights]
    chosen = [name if names.count(name) == 1 else path for name, path in zip(names, paths, strict=True)]
    if len(set(chosen)) < len(chosen):  # Keras 2 lets weights share a whole name
        chosen = [f"{name}_{k}" for k, name in enumerate(chosen)]
    return dict(zip(chosen, weights, strict=True))
