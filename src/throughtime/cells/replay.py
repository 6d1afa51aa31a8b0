"""The gates of all steps, from the captured states: one matrix product, in blocks that stay in cache."""

import math
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from . import scan
from .kinds import cell_of
from .layer import Floats, Layer
from .parallel import over_rows
from .steps import Block, by_column

ACTIVATION = 100  # least operations of a product and an activation for each gate of each step


class Replay(NamedTuple):
    """All steps of a pass in processing order, from the captured hidden states.

    `weights` (column, unit_from + feature + 1, unit) are [U; W; b]; with [h_{t-1}, x_t, 1] their product is
    every pre-activation.
    """

    steps: scan.Steps
    weights: Floats
    block: Block


def replay(layer: Layer, steps: scan.Steps) -> Replay:
    """Compute every gate from the captured states; only an LSTM's c is scanned over time."""
    replayed = room(layer, steps)
    block = replayed.block
    over_rows(partial(activate, layer, replayed), steps.count, ACTIVATION * block.columns.size)
    if block.cell_before is not None and block.cell is not None and not steps.stand_apart:
        scan.accumulate_cell(block.cell_before, block.cell, block.columns[:, :, 1], steps)
    return replayed


def room(layer: Layer, steps: scan.Steps) -> Replay:
    """Allocate arrays for every gate and its gradient."""
    cell, (count, samples, _), dtype = cell_of(layer), steps.inputs.shape, steps.hidden.dtype
    units, keeps_reset = layer.recurrent_kernel.shape[-1], layer.kind == "gru" and not layer.reset_after
    cell_before, cell_after = scan.room_for_cell(steps) if layer.kind == "lstm" else (None, None)
    shape = (cell.COLUMNS, count, samples, units)
    # Small ones lie together: from 4 MB on NumPy asks for huge pages, which are quicker to get.
    is_small = dtype.itemsize * math.prod(shape) < 2**22
    rooms = np.empty((2, *shape), dtype) if is_small else [np.empty(shape, dtype) for _ in range(2)]
    columns, gradients = (room.transpose(1, 2, 0, 3) for room in rooms)
    block = Block(
        columns,
        gradients,
        steps.hidden_before,
        np.ascontiguousarray(layer.recurrent_kernel[:, cell.RECURRENT_GATES].transpose(1, 2, 0)),
        cell_before,
        cell_after,
        np.empty((count, samples, units), dtype) if keeps_reset else None,
    )
    return Replay(steps, np.ascontiguousarray(cell.joint_weights(layer).swapaxes(0, 1)), block)


def activate(layer: Layer, replayed: Replay, share: slice) -> None:
    """Compute gates, and an LSTM's i·g, from the captured states, block by block in the cache."""
    steps, weights = replayed.steps, replayed.weights
    joined, width, side = np.empty((0, 0, 0)), steps.hidden_before.shape[-1], len(replayed.block.recurrent)
    for run in blocks(replayed, share):
        block = replayed.block.at(run)
        if len(joined) != len(block.columns):
            joined = np.ones((*block.columns.shape[:2], weights.shape[1]), weights.dtype)
        joined[:, :, :width] = block.hidden_before
        joined[:, :, width:-1] = steps.inputs[run]
        flat, each = joined.reshape(-1, weights.shape[1]), by_column(block.columns)
        np.matmul(flat, weights[:side], out=each[:side])
        np.matmul(flat[:, width:], weights[side:, width:], out=each[side:])  # of a GRU, without h
        cell_of(layer).activate(layer, block)
        if block.cell is not None and block.cell_before is not None:
            np.multiply(block.columns[:, :, 0], block.columns[:, :, 2], out=block.cell)
            if steps.stand_apart:
                np.add(block.cell, block.columns[:, :, 1] * block.cell_before, out=block.cell)


def blocks(replayed: Replay, share: slice = slice(None), *, size: int = 4) -> Iterator[slice]:
    """Yield runs of steps, whose arrays stay in cache if `size` is 1; others are `size` times as long."""
    start, stop, _ = share.indices(len(replayed.block.columns))
    for run in scan.blocks(stop - start, replayed.block.columns[:1].nbytes // size):
        yield slice(start + run.start, start + run.stop)
