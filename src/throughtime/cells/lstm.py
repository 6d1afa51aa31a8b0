"""LSTM: c_t = f·c_{t-1} + i·g, h_t = o·φ(c_t), and its adjoint.

Gates i, f, g, o in that order, as in Keras (Hochreiter & Schmidhuber 1997 with the forget gate of
Gers et al. 2000); `steps.Cell` documents each function.
"""

import numpy as np

from . import steps
from .activations import activate as activate_columns
from .activations import required_activation, slopes
from .layer import Floats, Layer
from .steps import Block, Carry, Factors

COLUMNS = 4
INPUT_SIDE = slice(0, 4)
RECURRENT_GATES: slice | list[int] = slice(None)
joint_weights, hand_back, split = steps.joint_weights, steps.hand_back, steps.split


def activation_names(layer: Layer) -> tuple[str, str, str, str]:
    """Activations of i, f, g and o."""
    gate = layer.recurrent_activation
    return gate, gate, layer.activation, gate


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
    slopes(block.columns, activation_names(layer), out=block.gradients)
    for gate, other in enumerate((g, block.cell_before, i, squashed)):
        block.gradients[:, :, gate] *= other
    e = o * phi.slope(squashed)
    projected = None if layer.projection is None else np.ascontiguousarray(layer.projection.T)
    return Factors(block.gradients, block.recurrent, hidden_to_cell=e, forget=f, projected=projected)


def pull(factors: Factors, hidden: Floats, cell: Floats, carry: Carry) -> None:
    """Five ufuncs."""
    assert factors.hidden_to_cell is not None
    assert factors.forget is not None
    of_cell, of_hidden = factors.columns[..., :3, :], factors.columns[..., 3, :]
    squashed = hidden if factors.projected is None else hidden @ factors.projected
    np.multiply(squashed, factors.hidden_to_cell, out=cell)
    np.add(cell, carry.cell, out=cell)
    np.multiply(cell[..., None, :], of_cell, out=of_cell)
    np.multiply(squashed, of_hidden, out=of_hidden)
    np.multiply(cell, factors.forget, out=carry.cell)


def squashed(layer: Layer, block: Block) -> Floats:
    """Compute o · φ(c_t), which a projection takes to h_t."""
    assert block.cell is not None
    value: Floats = block.columns[:, :, 3] * required_activation(layer.activation).value(block.cell)
    return value
