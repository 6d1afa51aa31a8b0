"""What one call of a recurrent layer takes in memory, told from shapes and settings before it runs."""

from __future__ import annotations

from math import prod
from typing import Any

import tensorflow as tf

from throughtime._budget import Need
from throughtime.adapters.keras import sizes
from throughtime.adapters.keras.gates import GATED
from throughtime.adapters.keras.held import HELD
from throughtime.adapters.keras.sizes import Asked
from throughtime.adapters.needs import Direction, bytes_of

from . import cudnn
from .arrays import shape_of
from .cell import inner_cells
from .internals import compute_dtype, raw_variable
from .own_cells import own_cell
from .ways import halves_of, is_closed, why_not
from .weights import kind_of_cell


def need(layer: Any, shape: tuple[int, ...], samples: int, asked: Asked) -> Need:
    """Tell what one call takes.

    Parameters
    ----------
    layer : RNN or Bidirectional
    shape : tuple of int
        Of the input, samples first, then time.
    samples : int
        Of the batch; a layer inside another one may see more.
    asked : Asked
    """
    if any(cudnn.kind(half) for half in halves_of(layer)):
        return Need()  # its kernel keeps what it keeps
    directions = [
        (_direction(half, shape, samples), is_closed(half, asked.training, asked.activations))
        for half in halves_of(layer)
    ]
    return sizes.need(
        directions,
        asked,
        HELD["tensorflow"],
        is_merged=getattr(layer, "merge_mode", None) in ("sum", "mul", "ave"),
        looks_inside=not why_not(layer, asked.training),
    )


def _direction(layer: Any, shape: tuple[int, ...], samples: int) -> Direction:
    own = own_cell(layer)
    cells = [(kind_of_cell(cell), _units(cell, layer, shape)) for cell in inner_cells(layer.cell)]
    numbers = [(prod(shape_of(weight)), raw_variable(weight).dtype) for weight in layer.weights]
    held = sum(count * bytes_of(tf.as_dtype(dtype).name) for count, dtype in numbers)
    gates = None if own is None else len(own.gates)
    item = bytes_of(compute_dtype(layer))
    rows = (shape[0] / samples, *shape[1:])
    return sizes.direction_of(layer, rows, cells, item=item, weights=held, own_gates=gates)


def _units(cell: Any, layer: Any, shape: tuple[int, ...]) -> list[int]:
    """Sizes of a cell's states, all but the LSTM's c, which is as large as h."""
    kind = kind_of_cell(cell)
    if kind == "conv_lstm":
        returned = layer.compute_output_shape(tf.TensorShape(shape))
        output = returned[0] if layer.return_state else returned
        return [prod(tf.TensorShape(output).as_list()[2 if layer.return_sequences else 1 :])]
    if kind in GATED:
        return [int(cell.units)]
    sizes_of_states = cell.state_size if isinstance(cell.state_size, (list, tuple)) else [cell.state_size]
    return [_elements(size) for size in tf.nest.flatten(list(sizes_of_states))]


def _elements(size: Any) -> int:
    """Count the elements of a state, of whose shape parts may not be known."""
    return prod(length for length in tf.TensorShape(size).as_list() if length)
