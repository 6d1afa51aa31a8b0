"""Weights of `tf.compat.v1.keras.layers.CuDNNLSTM` and `CuDNNGRU`, in the layout of `LSTM` and `GRU`.

cuDNN keeps each gate's matrix transposed and a bias on either side of a gate. The layers run on a GPU only;
what is inside them is not looked into.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from throughtime.adapters.keras.library import is_a
from throughtime.adapters.records import Array

GATES = {"CuDNNLSTM": 4, "CuDNNGRU": 3}
KINDS = {"CuDNNLSTM": "lstm", "CuDNNGRU": "gru"}


def kind(layer: Any) -> str:
    """Return the schema's word for a cuDNN layer; empty for every other layer."""
    return next((KINDS[name] for name in KINDS if is_a(layer, name)), "")


def named(layer: Any, values: Callable[[Any], Array | None], suffix: str = "") -> dict[str, Array]:
    """Read a cuDNN layer's weights, or their gradients, by the schema's names.

    Parameters
    ----------
    values : callable
        Takes a variable, returns its value or its gradient.
    suffix : str
        Appended to each name, `_gradient`. An LSTM's two biases act as their sum: its gradient is either's.
    """
    gates = {"lstm": 4, "gru": 3}[kind(layer)]
    bias = values(layer.bias)
    found = {
        "kernel": _with_gates(values(layer.kernel), gates, is_kernel=True),
        "recurrent_kernel": _with_gates(values(layer.recurrent_kernel), gates, is_kernel=False),
    }
    if bias is not None:
        input_side, recurrent_side = bias.reshape(2, gates, -1)
        if gates == 3:
            found |= {"bias": input_side, "recurrent_bias": recurrent_side}
        else:
            found["bias"] = input_side if suffix else input_side + recurrent_side
    return {f"{name}{suffix}": array for name, array in found.items() if array is not None}


def _with_gates(array: Array | None, gates: int, *, is_kernel: bool) -> Array | None:
    """(entering, gate · unit) to (entering, gate, unit), each gate's matrix turned back."""
    if array is None:
        return None
    parts = np.split(array, gates, axis=1)
    if is_kernel:  # the numbers of its transpose, in the order of memory, under its own shape
        parts = [part.reshape(part.shape[::-1]) for part in parts]
    return np.stack([part.T for part in parts], axis=1)
