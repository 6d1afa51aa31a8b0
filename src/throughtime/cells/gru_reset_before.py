"""GRU whose reset gate acts before the matrix product: ĥ = φ(x W_h + b_h + (r·h_{t-1}) U_h).

The form of Cho et al. 2014 (1406.1078), Keras' `reset_after=False`; gates z, r, ĥ, and z keeps. It needs a
second, smaller product per step in both directions.
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
    scaled_rows,
    split_totals,
    squared_norm,
    stacked_weights,
    transposed_kernel,
)

COLUMNS = 3
INPUT_SIDE = slice(0, 3)


def gates(layer: Layer, step: Step) -> Floats:
    """z, r, ĥ, (…, 3, unit)."""
    sigma, phi = required_activation(layer.recurrent_activation), required_activation(layer.activation)
    z: Floats = np.tensordot(step.inputs, layer.kernel, 1)
    if layer.bias is not None:
        z = z + layer.bias
    before = step.hidden_before
    z_and_r = sigma.value(z[..., :2, :] + np.tensordot(before, layer.recurrent_kernel[:, :2], 1))
    reset_hidden = z_and_r[..., 1, :] * before
    candidate = phi.value(z[..., 2, :] + reset_hidden @ layer.recurrent_kernel[:, 2])
    return np.concatenate([z_and_r, candidate[..., None, :]], axis=-2)


def jacobian(layer: Layer, step: Step) -> Floats:
    """J = D(z) + D((h−ĥ)z')U_zᵀ + D((1−z)ĥ')U_hᵀ[D(r) + D(h r')U_rᵀ]."""
    sigma, phi = required_activation(layer.recurrent_activation), required_activation(layer.activation)
    z, r, candidate = np.moveaxis(gates(layer, step), -2, 0)
    u_z, u_r, u_h = (layer.recurrent_kernel[:, gate].T for gate in range(3))
    through_reset = diagonal(r) + scaled_rows(step.hidden_before * sigma.slope(r), u_r)
    return (
        diagonal(z)
        + scaled_rows((step.hidden_before - candidate) * sigma.slope(z), u_z)
        + scaled_rows((1 - z) * phi.slope(candidate), u_h @ through_reset)
    )


def transposed(layer: Layer) -> Floats:
    """Uᵀ."""
    return transposed_kernel(layer.recurrent_kernel)


def joint_weights(layer: Layer) -> Floats:
    """[U; W; b] without U_h, which sees r·h_{t-1} instead of h_{t-1}."""
    weights = stacked_weights(layer)
    weights[: layer.recurrent_kernel.shape[0], 2] = 0
    return weights


def activate(layer: Layer, block: Block) -> None:
    """Convert the product to z, r, ĥ; keep r·h_{t-1} for dU_h."""
    assert block.reset_hidden is not None
    columns, units = block.columns, block.columns.shape[-1]
    activate_columns(columns[:, :, :2], (layer.recurrent_activation,) * 2)
    np.multiply(columns[:, :, 1], block.hidden_before, out=block.reset_hidden)
    product = block.reset_hidden.reshape(-1, units) @ layer.recurrent_kernel[:, 2]
    columns[:, :, 2] += product.reshape(block.reset_hidden.shape)
    activate_columns(columns[:, :, 2:], (layer.activation,))


def factors(layer: Layer, block: Block) -> Factors:
    """Return (a_z, –, a_h) per unit of dL/dh; a_r needs the product p first."""
    z, r, candidate = (block.columns[:, :, gate] for gate in range(3))
    coefficients = np.empty_like(block.columns)
    a_z, reset_slope, a_h = (coefficients[:, :, gate] for gate in range(3))
    names = (layer.recurrent_activation, layer.recurrent_activation, layer.activation)
    slopes(block.columns, names, out=coefficients)
    a_h *= 1 - z
    a_z *= block.hidden_before - candidate
    return Factors(
        coefficients,
        block.recurrent,
        leak=z.copy(),
        reset=r.copy(),
        reset_slope=block.hidden_before * reset_slope,
    )


def pull(factors: Factors, step: Places, hidden: Floats, columns: Floats, carry: Carry) -> None:
    """Two products and six ufuncs."""
    assert factors.leak is not None
    assert factors.reset is not None
    assert factors.reset_slope is not None
    units = hidden.shape[-1]
    rows, u_zr, u_h = (
        columns.reshape(-1, 3 * units),
        factors.recurrent[: 2 * units],
        factors.recurrent[2 * units :],
    )
    np.multiply(hidden[..., None, :], factors.columns[step], out=columns)
    p = carry.scratch
    np.dot(rows[:, 2 * units :], u_h, out=p.reshape(-1, units))
    np.multiply(p, factors.reset_slope[step], out=columns[..., 1, :])
    np.dot(rows[:, : 2 * units], u_zr, out=carry.hidden.reshape(-1, units))
    np.multiply(p, factors.reset[step], out=p)
    np.add(carry.hidden, p, out=carry.hidden)
    np.multiply(hidden, factors.leak[step], out=p)
    np.add(carry.hidden, p, out=carry.hidden)


def split(layer: Layer, block: Block, totals: Floats, columns: Floats) -> dict[str, Floats]:
    """[dU; dW; db] with dU_h = (r·h_{t-1})ᵀ a_h."""
    assert block.reset_hidden is not None
    units = layer.recurrent_kernel.shape[0]
    totals[:units, 2] = block.reset_hidden.reshape(-1, units).T @ columns[:, :, 2].reshape(-1, units)
    return split_totals(layer, totals)


def contribution(block: Block, columns: Floats) -> Floats:
    """‖dU_(t)‖² = ‖h‖²(‖a_z‖² + ‖a_r‖²) + ‖r·h‖²‖a_h‖²: two blocks of rank 1 side by side."""
    assert block.reset_hidden is not None
    a_z, a_r, a_h = (squared_norm(columns[:, :, gate]) for gate in range(3))
    gates_part = squared_norm(block.hidden_before) * (a_z + a_r)
    return np.sqrt(gates_part + squared_norm(block.reset_hidden) * a_h)
