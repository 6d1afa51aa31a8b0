"""SimpleRNN: h_t = φ(x W + h_{t-1} U + b), and its adjoint.

It is the shortest cell and the one to read first; `steps.Cell` documents each function.
"""

import numpy as np

from . import steps
from .activations import activate as activate_columns
from .activations import slopes
from .layer import Floats, Layer
from .steps import Block, Carry, Factors

COLUMNS = 1
INPUT_SIDE = slice(0, 1)
RECURRENT_GATES: slice | list[int] = slice(None)
joint_weights, hand_back, split = steps.joint_weights, steps.hand_back, steps.split


def activate(layer: Layer, block: Block) -> None:
    """Convert z to φ(z)."""
    activate_columns(block.columns, (layer.activation,))


def factors(layer: Layer, block: Block) -> Factors:
    """Return φ'."""
    slopes(block.columns, (layer.activation,), out=block.gradients)
    return Factors(block.gradients, block.recurrent)


def pull(factors: Factors, hidden: Floats, cell: Floats, carry: Carry) -> None:
    """One ufunc."""
    np.multiply(hidden[..., None, :], factors.columns, out=factors.columns)
