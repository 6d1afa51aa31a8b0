"""GRU whose reset gate acts after the matrix product: ĥ = φ(x W_h + b_h + r·q), q = h_{t-1} U_h + b_rec.

The form of torch and the default of Keras; gates z, r, ĥ, and z keeps: h_t = z·h_{t-1} + (1−z)·ĥ.
The fast path has four columns q, z, r, ĥ: the last three are the gates on the input side, the first three
the recurrent side.
"""

import numpy as np

from . import steps
from .activations import activate as activate_columns
from .activations import slopes
from .layer import Floats, Layer
from .steps import Block, Carry, Factors

COLUMNS = 4
RECURRENT_SIDE, INPUT_SIDE = slice(0, 3), slice(1, 4)
# Columns on the recurrent side are (q, z, r), gates are (z, r, ĥ): positions of one in the other.
RECURRENT_GATES: slice | list[int] = [2, 0, 1]
_TO_GATES = [1, 2, 0]
hand_back = steps.hand_back


def joint_weights(layer: Layer) -> Floats:
    """[U; W; b] for the columns q, z, r, ĥ: q has no input side, ĥ no recurrent side."""
    features, _, units = layer.kernel.shape
    weights = np.zeros((units + features + 1, COLUMNS, units), layer.kernel.dtype)
    weights[:units, RECURRENT_SIDE] = layer.recurrent_kernel[:, RECURRENT_GATES]
    weights[units:-1, INPUT_SIDE] = layer.kernel
    if layer.bias is not None:
        weights[-1, INPUT_SIDE] += layer.bias
    if layer.recurrent_bias is not None:
        weights[-1, RECURRENT_SIDE] += layer.recurrent_bias[RECURRENT_GATES]
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
    rho_h, a_z, a_r, a_h = (block.gradients[:, :, column] for column in range(4))
    names = (layer.recurrent_activation, layer.recurrent_activation, layer.activation)
    slopes(block.columns[:, :, INPUT_SIDE], names, out=block.gradients[:, :, INPUT_SIDE])
    a_h *= 1 - z
    a_z *= block.hidden_before - candidate
    a_r *= q
    a_r *= a_h
    np.multiply(a_h, r, out=rho_h)
    return Factors(block.gradients, block.recurrent, leak=z)


def pull(factors: Factors, hidden: Floats, cell: Floats, carry: Carry) -> None:
    """One ufunc."""
    np.multiply(hidden[..., None, :], factors.columns, out=factors.columns)


def split(block: Block, totals: Floats, columns: Floats, drawn: Floats | None) -> dict[str, Floats]:
    """[dU; dW; db], and the bias on the recurrent side."""
    rows = block.recurrent.shape[-1] if drawn is None else drawn.shape[-1]
    return {
        "recurrent_kernel_gradient": totals[:rows, _TO_GATES],
        "kernel_gradient": totals[rows:-1, INPUT_SIDE],
        "bias_gradient": totals[-1, INPUT_SIDE],
        "recurrent_bias_gradient": totals[-1, _TO_GATES],
    }
