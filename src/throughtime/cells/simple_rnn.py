"""SimpleRNN: h_t = φ(x W + h_{t-1} U + b), its adjoint and its Jacobian.

It is the shortest cell and the one to read first; `steps.Cell` documents each function.
"""

from __future__ import annotations

import numpy as np

from .activations import activate as activate_columns
from .activations import required_activation, slopes
from .layer import Floats, Layer
from .steps import (
    Block,
    Carry,
    Factors,
    Places,
    Step,
    norm_product,
    pre_activation,
    scaled_rows,
    split_totals,
    squared_norm,
    stacked_weights,
    transposed_kernel,
)

COLUMNS = 1
INPUT_SIDE = slice(0, 1)


def gates(layer: Layer, step: Step) -> Floats:
    """φ(z), (…, 1, unit)."""
    return required_activation(layer.activation).value(pre_activation(layer, step))


def jacobian(layer: Layer, step: Step) -> Floats:
    """J = D(φ') Uᵀ."""
    slope = required_activation(layer.activation).slope(gates(layer, step))[..., 0, :]
    return scaled_rows(slope, layer.recurrent_kernel[:, 0].T)


def transposed(layer: Layer) -> Floats:
    """Uᵀ."""
    return transposed_kernel(layer.recurrent_kernel)


def joint_weights(layer: Layer) -> Floats:
    """[U; W; b]."""
    return stacked_weights(layer)


def activate(layer: Layer, block: Block) -> None:
    """Convert z to φ(z)."""
    activate_columns(block.columns, (layer.activation,))


def factors(layer: Layer, block: Block) -> Factors:
    """Return φ'."""
    coefficients = np.empty_like(block.columns)
    slopes(block.columns, (layer.activation,), out=coefficients)
    return Factors(coefficients, block.recurrent)


def pull(factors: Factors, step: Places, hidden: Floats, columns: Floats, carry: Carry) -> None:
    """One product and two ufuncs."""
    units = hidden.shape[-1]
    np.multiply(hidden[..., None, :], factors.columns[step], out=columns)
    if factors.leak is not None:
        np.multiply(hidden, factors.leak[step], out=carry.scratch)
    np.dot(columns.reshape(-1, units), factors.recurrent, out=carry.hidden.reshape(-1, units))
    if factors.leak is not None:
        np.add(carry.hidden, carry.scratch, out=carry.hidden)


def split(layer: Layer, block: Block, totals: Floats, columns: Floats) -> dict[str, Floats]:
    """[dU; dW; db]."""
    return split_totals(layer, totals)


def contribution(block: Block, columns: Floats) -> Floats:
    """‖h_{t-1}ᵀ dz‖ = ‖h_{t-1}‖·‖dz‖: rank 1 per sample."""
    return norm_product(squared_norm(block.hidden_before), squared_norm(columns).sum(-1))
