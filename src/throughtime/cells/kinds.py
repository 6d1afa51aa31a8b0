"""The module with the mathematics of each kind of layer.

A new cell is one module with the functions of `steps.Cell` and one line here.
"""

from throughtime._errors import UnsupportedModelError

from . import gru, gru_reset_before, lstm, simple_rnn
from .layer import Layer
from .steps import Cell

_CELLS: dict[str, Cell] = {"lstm": lstm, "gru": gru, "simple_rnn": simple_rnn}


def cell_of(layer: Layer) -> Cell:
    """Return the cell of a layer; UnsupportedModelError for a kind without closed forms."""
    if layer.kind not in _CELLS:
        raise UnsupportedModelError(
            f"No closed-form adjoint for a layer of kind {layer.kind!r}. There is one for "
            f"{', '.join(_CELLS)}."
        )
    if layer.kind == "gru" and not layer.reset_after:
        return gru_reset_before
    return _CELLS[layer.kind]
