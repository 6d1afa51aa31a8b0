"""GRU whose reset gate acts before the matrix product: ĥ = φ(x W_h + b_h + (r·h_{t-1}) U_h).

The form of Cho et al. 2014 (1406.1078), Keras' `reset_after=False`; gates z, r, ĥ, and z keeps. It needs a
second, smaller product per step in both directions.
"""

import numpy as np

from . import steps
from .activations import activate as activate_columns
from .activations import slopes
from .layer import Floats, Layer
from .steps import Block, Carry, Factors

COLUMNS = 3
INPUT_SIDE = slice(0, 3)
RECURRENT_GATES: slice | list[int] = slice(None)


def joint_weights(layer: Layer) -> Floats:
    """[U; W; b] without U_h, which sees r·h_{t-1} instead of h_{t-1}."""
    weights = steps.joint_weights(layer)
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
    a_z, reset_slope, a_h = (block.gradients[:, :, gate] for gate in range(3))
    names = (layer.recurrent_activation, layer.recurrent_activation, layer.activation)
    slopes(block.columns, names, out=block.gradients)
    a_h *= 1 - z
    a_z *= block.hidden_before - candidate
    return Factors(
        block.gradients,
        block.recurrent,
        leak=z,
        reset=r,
        reset_slope=block.hidden_before * reset_slope,
    )


def pull(factors: Factors, hidden: Floats, cell: Floats, carry: Carry) -> None:
    """One product, left in `carry.scratch` for `hand_back`, and two ufuncs."""
    assert factors.reset_slope is not None
    units, p, columns = hidden.shape[-1], carry.scratch, factors.columns
    np.multiply(hidden[..., None, :], columns, out=columns)
    np.dot(columns[..., 2, :].reshape(-1, units), factors.recurrent[2], out=p.reshape(-1, units))
    np.multiply(p, factors.reset_slope, out=columns[..., 1, :])


def hand_back(factors: Factors, hidden: Floats, carry: Carry) -> None:
    """One product and four ufuncs."""
    assert factors.leak is not None
    assert factors.reset is not None
    p = carry.scratch
    steps.through_recurrent(factors.columns, factors.recurrent[:2], carry.hidden)
    np.multiply(p, factors.reset, out=p)
    np.add(carry.hidden, p, out=carry.hidden)
    np.multiply(hidden, factors.leak, out=p)
    np.add(carry.hidden, p, out=carry.hidden)


def split(block: Block, totals: Floats, columns: Floats, drawn: Floats | None) -> dict[str, Floats]:
    """[dU; dW; db] with dU_h = (r·h_{t-1})ᵀ a_h."""
    assert block.reset_hidden is not None
    hidden, candidate = (one.reshape(-1, columns.shape[-1]) for one in (block.reset_hidden, columns[:, :, 2]))
    hidden = hidden if drawn is None else hidden @ drawn
    totals[: hidden.shape[-1], 2] = hidden.T @ candidate
    return steps.split(block, totals, columns, drawn)
