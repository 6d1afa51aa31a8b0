"""Gives the weights of Keras' cells one orientation: input rows, gates apart, units last.

Every Keras already keeps gates in the schema's order (LSTM i, f, c, o; GRU z, r, h), side by side in the last
axis; splitting that axis is all that is needed. Shared by the adapters of every Keras.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from throughtime.adapters.records import Array

# What stands for a variable: its value or its gradient; None where the loss does not reach it.
Values = Callable[[Any], Array | None]
Readers = Mapping[str, Values]  # by the suffix that the names get


def gated(cell: Any, gates: int, values: Values, suffix: str) -> dict[str, Array]:
    """Read the weights of one of Keras' own cells, gates apart.

    Parameters
    ----------
    values : callable
        Takes a variable, returns the array wanted for it: its value or its gradient.
    suffix : str
        Appended to each name, `_gradient`.
    """
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


def both(forward: Mapping[str, Array], backward: Mapping[str, Array], *, alike: bool) -> dict[str, Array]:
    """Join the weights of both layers of a Bidirectional, on an axis of their own where they are alike."""
    if alike:
        return {name: np.stack([forward[name], backward[name]]) for name in forward if name in backward}
    return {
        **{f"forward_{name}": value for name, value in forward.items()},
        **{f"backward_{name}": value for name, value in backward.items()},
    }


def known(named: Mapping[str, Any], values: Values, suffix: str) -> dict[str, Array]:
    """Read variables that have names already; those without a value are left out."""
    arrays = {f"{name}{suffix}": values(variable) for name, variable in named.items()}
    return {name: array for name, array in arrays.items() if array is not None}
