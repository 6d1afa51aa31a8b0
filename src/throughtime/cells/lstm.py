"""LSTM: c_t = f·c_{t-1} + i·g, h_t = o·φ(c_t), its adjoint and its Jacobian on the joint state (h, c).

Gates i, f, g, o in that order, as in Keras (Hochreiter & Schmidhuber 1997 with the forget gate of
Gers et al. 2000); `steps.Cell` documents each function.
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
    pre_activation,
    scaled_rows,
    split_totals,
    squared_norm,
    stacked_weights,
    transposed_kernel,
)

COLUMNS = 4
INPUT_SIDE = slice(0, 4)


def activation_names(layer: Layer) -> tuple[str, str, str, str]:
    """Activations of i, f, g and o."""
    gate = layer.recurrent_activation
    return gate, gate, layer.activation, gate


def gates(layer: Layer, step: Step) -> Floats:
    """i, f, g, o, (…, 4, unit)."""
    z = pre_activation(layer, step)
    activate_columns(z, activation_names(layer))
    return z


def jacobian(layer: Layer, step: Step) -> Floats:
    """J = [[D(φ(c) o')U_oᵀ + D(e)M, D(e f)], [M, D(f)]] with e = o φ'(c), M = dc_t/dh_{t-1}."""
    assert step.cell is not None
    assert step.cell_before is not None
    phi, sigma = required_activation(layer.activation), required_activation(layer.recurrent_activation)
    i, f, g, o = np.moveaxis(gates(layer, step), -2, 0)
    squashed = phi.value(step.cell)
    e = o * phi.slope(squashed)
    u_i, u_f, u_g, u_o = (layer.recurrent_kernel[:, gate].T for gate in range(4))
    m = (
        scaled_rows(g * sigma.slope(i), u_i)
        + scaled_rows(step.cell_before * sigma.slope(f), u_f)
        + scaled_rows(i * phi.slope(g), u_g)
    )
    hidden_from_hidden = scaled_rows(squashed * sigma.slope(o), u_o) + scaled_rows(e, m)
    hidden_rows = np.concatenate([hidden_from_hidden, diagonal(e * f)], axis=-1)
    cell_rows = np.concatenate([m, diagonal(f)], axis=-1)
    return np.concatenate([hidden_rows, cell_rows], axis=-2)


def transposed(layer: Layer) -> Floats:
    """Uᵀ."""
    return transposed_kernel(layer.recurrent_kernel)


def joint_weights(layer: Layer) -> Floats:
    """[U; W; b]."""
    return stacked_weights(layer)


def activate(layer: Layer, block: Block) -> None:
    """Convert z to i, f, g, o."""
    activate_columns(block.columns, activation_names(layer))


def factors(layer: Layer, block: Block) -> Factors:
    """Return A of dz = A · (dc, dc, dc, dh), and e and f, which carry the cell."""
    assert block.cell is not None
    assert block.cell_before is not None
    phi = required_activation(layer.activation)
    i, f, g, o = (block.columns[:, :, gate] for gate in range(4))
    squashed = phi.value(block.cell)
    gate_slopes = np.empty_like(block.columns)
    slopes(block.columns, activation_names(layer), out=gate_slopes)
    for gate, other in enumerate((g, block.cell_before, i, squashed)):
        gate_slopes[:, :, gate] *= other
    e = o * phi.slope(squashed)
    projected = None if layer.projection is None else np.ascontiguousarray(layer.projection.T)
    return Factors(gate_slopes, block.recurrent, hidden_to_cell=e, forget=f.copy(), projected=projected)


def pull(factors: Factors, step: Places, hidden: Floats, columns: Floats, carry: Carry) -> None:
    """One product and five ufuncs."""
    assert factors.hidden_to_cell is not None
    assert factors.forget is not None
    coefficients = factors.columns[step]
    squashed = hidden if factors.projected is None else hidden @ factors.projected
    np.multiply(squashed, factors.hidden_to_cell[step], out=carry.total_cell)
    np.add(carry.total_cell, carry.cell, out=carry.total_cell)
    np.multiply(carry.total_cell[..., None, :], coefficients[..., :3, :], out=columns[..., :3, :])
    np.multiply(squashed, coefficients[..., 3, :], out=columns[..., 3, :])
    if factors.leak is not None:
        np.multiply(hidden, factors.leak[step], out=carry.scratch)
    width = len(factors.recurrent)
    np.dot(columns.reshape(-1, width), factors.recurrent, out=carry.hidden.reshape(-1, hidden.shape[-1]))
    if factors.leak is not None:
        np.add(carry.hidden, carry.scratch, out=carry.hidden)
    np.multiply(carry.total_cell, factors.forget[step], out=carry.cell)


def squashed(layer: Layer, block: Block) -> Floats:
    """Compute o · φ(c_t), which a projection takes to h_t."""
    assert block.cell is not None
    value: Floats = block.columns[:, :, 3] * required_activation(layer.activation).value(block.cell)
    return value


def split(layer: Layer, block: Block, totals: Floats, columns: Floats) -> dict[str, Floats]:
    """[dU; dW; db]."""
    return split_totals(layer, totals)


def contribution(block: Block, columns: Floats) -> Floats:
    """‖h_{t-1}ᵀ dz‖ = ‖h_{t-1}‖·‖dz‖: rank 1 per sample."""
    return norm_product(squared_norm(block.hidden_before), squared_norm(columns).sum(-1))
