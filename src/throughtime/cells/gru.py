"""GRU whose reset gate acts after the matrix product: ĥ = φ(x W_h + b_h + r·q), q = h_{t-1} U_h + b_rec.

The form of torch and the default of Keras; gates z, r, ĥ, and z keeps: h_t = z·h_{t-1} + (1−z)·ĥ.
The fast path has four columns q, z, r, ĥ: the last three are the gates on the input side, the first three
the recurrent side.
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
    diagonal,
    norm_product,
    scaled_rows,
    squared_norm,
    transposed_kernel,
)

COLUMNS = 4
RECURRENT_SIDE, INPUT_SIDE = slice(0, 3), slice(1, 4)
# Columns on the recurrent side are (q, z, r), gates are (z, r, ĥ): positions of one in the other.
_TO_COLUMNS, _TO_GATES = [2, 0, 1], [1, 2, 0]


def _products(layer: Layer, step: Step) -> tuple[Floats, Floats]:
    """Return z, r, ĥ (…, 3, unit) and q (…, unit)."""
    input_side: Floats = np.tensordot(step.inputs, layer.kernel, 1)
    recurrent_side: Floats = np.tensordot(step.hidden_before, layer.recurrent_kernel, 1)
    if layer.bias is not None:
        input_side = input_side + layer.bias
    if layer.recurrent_bias is not None:
        recurrent_side = recurrent_side + layer.recurrent_bias
    sigma, phi = required_activation(layer.recurrent_activation), required_activation(layer.activation)
    z_and_r = sigma.value(input_side[..., :2, :] + recurrent_side[..., :2, :])
    q = recurrent_side[..., 2, :]
    candidate = phi.value(input_side[..., 2, :] + z_and_r[..., 1, :] * q)
    return np.concatenate([z_and_r, candidate[..., None, :]], axis=-2), q


def gates(layer: Layer, step: Step) -> Floats:
    """z, r, ĥ, (…, 3, unit)."""
    return _products(layer, step)[0]


def jacobian(layer: Layer, step: Step) -> Floats:
    """J = D(z) + D((h−ĥ)z')U_zᵀ + D((1−z)ĥ')[D(r)U_hᵀ + D(q r')U_rᵀ]."""
    sigma, phi = required_activation(layer.recurrent_activation), required_activation(layer.activation)
    activated, q = _products(layer, step)
    z, r, candidate = np.moveaxis(activated, -2, 0)
    u_z, u_r, u_h = (layer.recurrent_kernel[:, gate].T for gate in range(3))
    through_candidate = scaled_rows(r, u_h) + scaled_rows(q * sigma.slope(r), u_r)
    return (
        diagonal(z)
        + scaled_rows((step.hidden_before - candidate) * sigma.slope(z), u_z)
        + scaled_rows((1 - z) * phi.slope(candidate), through_candidate)
    )


def transposed(layer: Layer) -> Floats:
    """Uᵀ for the columns q, z, r."""
    return transposed_kernel(layer.recurrent_kernel[:, _TO_COLUMNS])


def joint_weights(layer: Layer) -> Floats:
    """[U; W; b] for the columns q, z, r, ĥ: q has no input side, ĥ no recurrent side."""
    features, _, units = layer.kernel.shape
    weights = np.zeros((units + features + 1, COLUMNS, units), layer.kernel.dtype)
    weights[:units, RECURRENT_SIDE] = layer.recurrent_kernel[:, _TO_COLUMNS]
    weights[units:-1, INPUT_SIDE] = layer.kernel
    if layer.bias is not None:
        weights[-1, INPUT_SIDE] += layer.bias
    if layer.recurrent_bias is not None:
        weights[-1, RECURRENT_SIDE] += layer.recurrent_bias[_TO_COLUMNS]
    return weights


def activate(layer: Layer, block: Block) -> None:
    """Convert the product to q, z, r, ĥ."""
    columns = block.columns
    activate_columns(columns[:, :, 1:3], (layer.recurrent_activation,) * 2)
    columns[:, :, 3] += columns[:, :, 2] * columns[:, :, 0]
    activate_columns(columns[:, :, 3:], (layer.activation,))


def factors(layer: Layer, block: Block) -> Factors:
    """Return (ρ_h, a_z, a_r, a_h) per unit of dL/dh; z leaks."""
    q, z, r, candidate = (block.columns[:, :, column] for column in range(4))
    coefficients = np.empty_like(block.columns)
    rho_h, a_z, a_r, a_h = (coefficients[:, :, column] for column in range(4))
    names = (layer.recurrent_activation, layer.recurrent_activation, layer.activation)
    slopes(block.columns[:, :, INPUT_SIDE], names, out=coefficients[:, :, INPUT_SIDE])
    a_h *= 1 - z
    a_z *= block.hidden_before - candidate
    a_r *= q
    a_r *= a_h
    np.multiply(a_h, r, out=rho_h)
    return Factors(coefficients, block.recurrent, leak=z.copy())


def pull(factors: Factors, step: Places, hidden: Floats, columns: Floats, carry: Carry) -> None:
    """One product and three ufuncs."""
    assert factors.leak is not None
    units = hidden.shape[-1]
    np.multiply(hidden[..., None, :], factors.columns[step], out=columns)
    np.multiply(hidden, factors.leak[step], out=carry.scratch)
    # The first three columns as rows of a wider matrix: BLAS takes the stride, nothing is copied.
    rho = columns.reshape(-1, COLUMNS * units)[:, : 3 * units]
    np.dot(rho, factors.recurrent, out=carry.hidden.reshape(-1, units))
    np.add(carry.hidden, carry.scratch, out=carry.hidden)


def split(layer: Layer, block: Block, totals: Floats, columns: Floats) -> dict[str, Floats]:
    """[dU; dW; db], and the bias on the recurrent side."""
    units = layer.recurrent_kernel.shape[0]
    return {
        "recurrent_kernel_gradient": totals[:units, _TO_GATES],
        "kernel_gradient": totals[units:-1, INPUT_SIDE],
        "bias_gradient": totals[-1, INPUT_SIDE],
        "recurrent_bias_gradient": totals[-1, _TO_GATES],
    }


def contribution(block: Block, columns: Floats) -> Floats:
    """‖h_{t-1}ᵀ ρ‖ = ‖h_{t-1}‖·‖ρ‖: rank 1 per sample."""
    rho = squared_norm(columns[:, :, RECURRENT_SIDE]).sum(-1)
    return norm_product(squared_norm(block.hidden_before), rho)
