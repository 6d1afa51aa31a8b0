"""What one call of a recurrent layer takes in memory, told from shapes and settings before it runs."""

from __future__ import annotations

from math import prod
from typing import Any

from throughtime._memory.budget import Need
from throughtime.adapters.needs import Direction, bytes_of

from . import cell as cells
from . import cudnn, sizes
from .dialect import Dialect
from .gates import GATED
from .held import HELD
from .layers import halves
from .sizes import Asked
from .ways import is_closed, why_not
from .weights import kind_of_cell


def need(keras: Dialect, layer: Any, shape: tuple[int, ...], samples: int, asked: Asked) -> Need:
    """Tell what one call takes.

    Parameters
    ----------
    keras : Dialect
    layer : RNN or Bidirectional
    shape : tuple of int
        Of the input, samples first, then time.
    samples : int
        Of the batch; a layer inside another one may see more.
    asked : Asked
    """
    both = halves(layer)
    if any(cudnn.kind(half) for half in both):
        return Need()  # its kernel keeps what it keeps
    directions = [
        (_direction(keras, half, shape, samples), is_closed(keras, half, asked.training, asked.activations))
        for half in both
    ]
    return sizes.need(
        directions,
        asked,
        HELD[keras.backend_name()],
        is_merged=getattr(layer, "merge_mode", None) in ("sum", "mul", "ave"),
        looks_inside=not why_not(keras, layer),
    )


def _direction(keras: Dialect, layer: Any, shape: tuple[int, ...], samples: int) -> Direction:
    parts = cells.inner_cells(layer.cell)
    known = [(kind_of_cell(keras, cell), _units(keras, cell, layer, shape)) for cell in parts]
    counts = [(prod(keras.shape_of(each)), keras.dtype_of(each)) for each in layer.weights]
    held = sum(count * bytes_of(dtype) for count, dtype in counts)
    item = bytes_of(keras.compute_dtype(layer))
    rows = (shape[0] / samples, *shape[1:])
    return sizes.direction_of(layer, rows, known, item=item, weights=held)


def _units(keras: Dialect, cell: Any, layer: Any, shape: tuple[int, ...]) -> list[int]:
    """Sizes of a cell's states, all but the LSTM's c, which is as large as h."""
    kind = kind_of_cell(keras, cell)
    if kind == "conv_lstm":
        returned = layer.compute_output_shape(shape)
        output = returned[0] if layer.return_state else returned
        return [_elements(tuple(output)[2 if layer.return_sequences else 1 :])]
    if kind in GATED:
        return [int(cell.units)]
    return [_elements(size) for size in cells.sizes_of_states(keras, cell)]


def _elements(size: Any) -> int:
    """Count the elements of a state, of whose shape parts may not be known."""
    lengths = [size] if isinstance(size, int) else list(size)
    # TensorFlow 1 has numbers of its own.
    known = [getattr(length, "value", length) for length in lengths]
    return prod(length for length in known if isinstance(length, int) and length > 0)
