"""Estimates what one call of a recurrent layer of any Keras takes in memory, from shapes, before it runs."""

from __future__ import annotations

from math import prod
from typing import Any

from throughtime._memory.budget import Need
from throughtime.adapters.needs import COLUMNS, Asked, Direction, Overhead, bytes_of, estimate

from . import cell as cells
from . import cudnn
from .dialect import Dialect
from .gates import GATED
from .layers import halves
from .weights import kind_of_cell

OVERHEAD = {
    "tensorflow": Overhead(back=2.5, forward=1, solving=10, weights=10, each_step=4_500),
    "jax": Overhead(back=3, forward=1, solving=2.8),
    # Its loop is Python's: every step has nodes of its own in the graph.
    "torch": Overhead(back=3, forward=1.5, solving=2.4, each_step=30_000),
}
_COLUMNS = {**GATED, **COLUMNS}
_WITH_CELL = ("lstm", "conv_lstm")


def need(keras: Dialect, layer: Any, shape: tuple[int, ...], samples: int, asked: Asked) -> Need:
    """Estimate what one call takes.

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
    directions = [_direction(keras, half, shape, samples) for half in both]
    is_merged = getattr(layer, "merge_mode", None) in ("sum", "mul", "ave")
    return estimate(directions, asked, OVERHEAD[keras.backend_name()], is_merged=is_merged)


def _direction(keras: Dialect, layer: Any, shape: tuple[int, ...], samples: int) -> Direction:
    parts = cells.inner_cells(layer.cell)
    kinds = [kind_of_cell(keras, cell) for cell in parts]
    units = [_units(keras, cell, layer, shape) for cell in parts]
    known = [(kind, sum(sizes)) for kind, sizes in zip(kinds, units, strict=True)]
    columns = sum(_COLUMNS.get(kind, 0) * size for kind, size in known)
    return Direction(
        rows=shape[0] / samples,
        steps=shape[1],
        output_steps=shape[1] if layer.return_sequences else 1,
        features=prod(shape[2:]),
        output=units[-1][0],
        hidden=sum(size for _, size in known),
        cell=sum(size for kind, size in known if kind in _WITH_CELL),
        columns=columns,
        gates=0 if kinds[0] == "simple_rnn" else columns,
        item=bytes_of(keras.compute_dtype(layer)),
        weights=sum(prod(keras.shape_of(each)) * bytes_of(keras.dtype_of(each)) for each in layer.weights),
    )


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
