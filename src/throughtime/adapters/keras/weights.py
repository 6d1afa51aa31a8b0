"""Gives weights, or their gradients, names and one orientation: input rows, gates apart, units last.

Every Keras keeps gates in the schema's order (LSTM i, f, c, o; GRU z, r, h), side by side in the last axis;
splitting that axis is all that is needed. `tf.compat.v1.keras.layers.CuDNNLSTM` and `CuDNNGRU` keep each
gate's matrix transposed and a bias on either side of a gate; they are converted to the layout of `LSTM` and
`GRU`.
"""

import re
from collections.abc import Callable, Mapping

import numpy as np

from throughtime._vocabulary import DIRECTIONS
from throughtime.adapters.records import Array, to_snake_case

from . import cell as cells
from .cell import GATED
from .contracts import Layer, Variable
from .library import halves, is_a, path_of, shape_of

# Takes a variable and returns its value or its gradient; None where the loss does not reach it.
Values = Callable[[Variable], Array | None]
Readers = Mapping[str, Values]  # by the suffix that the names get, `_gradient`


def kind(layer: Layer) -> str:
    """Return the schema's word for a layer's cell, the class name in snake case for other layers."""
    kinds = {_kind(half) for half in halves(layer)}
    return kinds.pop() if len(kinds) == 1 else "rnn"


def _kind(layer: Layer) -> str:
    if cudnn_kind(layer):
        return cudnn_kind(layer)
    if is_a(layer, "RNN"):
        return cells.standard_kind(layer.cell) or "rnn"
    return to_snake_case(type(layer).__name__)


def cudnn_kind(layer: Layer) -> str:
    """Return the schema's word for a cuDNN layer; empty for every other layer."""
    kinds = {"CuDNNLSTM": "lstm", "CuDNNGRU": "gru"}
    return next((kinds[name] for name in kinds if is_a(layer, name)), "")


def directions(layer: Layer) -> tuple[str, ...]:
    """Both directions of a Bidirectional whose halves are alike and can share an axis."""
    each = [(type(getattr(half, "cell", None)), *map(shape_of, half.weights)) for half in halves(layer)]
    return DIRECTIONS if len(each) == 2 and each[0] == each[1] else ()


def named(layer: Layer, values: Values, suffix: str = "") -> dict[str, Array]:
    """Read a layer's weights, or what `values` has for each; `suffix` is appended to each name."""
    if is_a(layer, "Bidirectional"):
        forward, backward = (named(half, values, suffix) for half in halves(layer))
        if directions(layer):
            return {name: np.stack([forward[name], backward[name]]) for name in forward if name in backward}
        return {f"forward_{name}": forward[name] for name in forward} | {
            f"backward_{name}": backward[name] for name in backward
        }
    if cudnn_kind(layer):
        return _of_cudnn(layer, values, suffix)
    is_gated = is_a(layer, "RNN") and kind(layer) in GATED
    return of_cell(layer.cell if is_gated else layer, values, suffix)


def of_cell(cell: Layer, values: Values, suffix: str = "") -> dict[str, Array]:
    """Read the weights of one cell, or of any layer that is not recurrent, as `named` does."""
    gates = GATED.get(cells.standard_kind(cell), 0)
    known = ("kernel", "recurrent_kernel", *(["bias"] if gates and cell.use_bias else []))
    variables: dict[str, Variable] = (
        {name: getattr(cell, name) for name in known} if gates else _by_own_name(cell)
    )
    found = {name: values(variable) for name, variable in variables.items()}
    arrays = {name: array for name, array in found.items() if array is not None}
    if gates and "bias" in arrays and arrays["bias"].ndim == 2:
        # A GRU that resets after the product keeps one bias for each side.
        arrays["bias"], arrays["recurrent_bias"] = arrays["bias"]
    return {
        f"{name}{suffix}": array.reshape(*array.shape[:-1], gates, -1) if gates > 1 else array
        for name, array in arrays.items()
    }


def _by_own_name(layer: Layer) -> dict[str, Variable]:
    """Name the weights of any layer: by the variable, and where that is taken by its path as well."""
    weights = getattr(layer, "weights", [])  # a cell need not be a layer
    paths = [path_of(variable) for variable in weights]
    names = [re.sub(r"\W", "_", path.rpartition("/")[2]) for path in paths]
    chosen = [
        name if names.count(name) == 1 else re.sub(r"\W", "_", path)
        for name, path in zip(names, paths, strict=True)
    ]
    if len(set(chosen)) < len(chosen):  # Keras 2 lets weights share a whole path
        chosen = [f"{name}_{k}" for k, name in enumerate(chosen)]
    return dict(zip(chosen, weights, strict=True))


def _of_cudnn(layer: Layer, values: Values, suffix: str) -> dict[str, Array]:
    """Read a cuDNN layer's weights; an LSTM's two biases act as their sum, whose gradient is either's."""
    gates, bias = GATED[cudnn_kind(layer)], values(layer.bias)
    kernels = {"kernel": values(layer.kernel), "recurrent_kernel": values(layer.recurrent_kernel)}
    found = {name: _with_gates(array, gates, name) for name, array in kernels.items() if array is not None}
    if bias is not None:
        input_side, recurrent_side = bias.reshape(2, gates, -1)
        if gates == 3:
            found |= {"bias": input_side, "recurrent_bias": recurrent_side}
        else:
            found["bias"] = input_side if suffix else input_side + recurrent_side
    return {f"{name}{suffix}": array for name, array in found.items()}


def _with_gates(array: Array, gates: int, name: str) -> Array:
    """(entering, gate · unit) to (entering, gate, unit), each gate's matrix turned back."""
    parts = np.split(array, gates, axis=1)
    if name == "kernel":  # the numbers of its transpose, in the order of memory, under its own shape
        parts = [part.reshape(part.shape[::-1]) for part in parts]
    return np.stack([part.T for part in parts], axis=1)
