"""The adjoint of many loss steps at once: the rows of a lag matrix Λ[s, t] = ‖dℓ_s/ds_t‖ of one layer.

The coefficients of `adjoint` serve all rows; rows are an extra leading axis of the same step, in chunks
that fit a budget of memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .adjoint import replay
from .kinds import cell_of
from .layer import Floats, Layer, Pass, with_gate_axis, working_dtype
from .parallel import one_thread
from .scan import (
    Steps,
    arrange,
    entry_steps,
    hold,
    in_input_time,
    move_to_valid,
    processing_steps,
    rows_in_processing_order,
    vanished,
)
from .steps import Carry, Cell, Factors, squared_norm

Indices = npt.NDArray[np.intp]
# Adds to dL/dh_t (row, sample, unit) what enters the state at step t, for the rows that take part.
Enter = Callable[[int, Floats], None]


@dataclass(frozen=True)
class LagRows:
    """Norms of dℓ_s/ds_t, and on request their sums over s.

    Attributes
    ----------
    joint : ndarray (sample, loss_time, time)
        Norm on the state (h, c), h and c as independent variables; the same as `hidden` without a cell.
    hidden : ndarray (sample, loss_time, time)
        Norm of dℓ_s/dh_t alone.
    hidden_gradient, cell_gradient : ndarray (sample, time, unit) or None
        Σ_s of the vectors, the total derivatives that `solve` returns under these names.
    """

    joint: Floats
    hidden: Floats
    hidden_gradient: Floats | None = None
    cell_gradient: Floats | None = None


@dataclass(frozen=True)
class _Chunk:
    """Some rows: where their norms go, how many of them take part at a step, and what enters there."""

    places: Indices
    last_step: int
    active: Callable[[int], int]
    enter: Enter


@dataclass(frozen=True)
class _Results:
    """Norms (sample, loss_time, time) and sums (time, sample, unit), time in processing order."""

    joint: Floats
    hidden: Floats
    hidden_sum: Floats
    cell_sum: Floats

    @classmethod
    def zeros(cls, steps: Steps, rows: int) -> _Results:
        """Norms are float64 until the end: squares of single-precision numbers underflow."""
        samples, units = steps.hidden.shape[1:]
        norms = np.zeros((2, samples, rows, steps.count))
        sums = np.zeros((2, steps.count, samples, units), steps.hidden.dtype)
        return cls(*norms, *sums)


def lag_rows(
    layer: Layer,
    passed: Pass,
    rows: Floats,
    *,
    loss_steps: Sequence[int] | None = None,
    byte_budget: int = 2**20,
    summed: bool = False,
) -> LagRows:
    """Follow the gradient of each step's loss back through the layer.

    Parameters
    ----------
    layer, passed
        As for `solve`; the rows take the place of the pass's own gradients.
    rows : ndarray (sample, time, unit), or (loss_time, sample, time, unit)
        ∂ℓ_s/∂out. Three axes: the loss of step s reads this layer's output at s alone, `rows[:, s]`.
        Four axes: each loss step's gradient on the outputs of all steps, as layers above send it.
    loss_steps : sequence of int, optional
        With three axes: the steps s to follow, in input time; all by default.
    byte_budget : int
        Memory of the gate gradients of one chunk of rows.
    summed : bool
        Return Σ_s over the rows followed as well.

    Returns
    -------
    LagRows
        Time in input time; exactly 0 where no gradient comes: s < t, mirrored if the layer runs backward.
        Between a masked loss step and the valid step that its output repeats it is 0 too.
    """
    steps, factors = _linearised(layer, passed)
    chosen = processing_steps(passed, loss_steps)
    results = _Results.zeros(steps, len(chosen) if rows.ndim == 3 else len(rows))
    per_chunk = max(1, byte_budget // factors.columns[0].nbytes)
    split = _diagonal_chunks if rows.ndim == 3 else _full_chunks
    with one_thread():
        for chunk in split(passed, steps, rows, chosen, per_chunk):
            _follow(cell_of(layer), factors, chunk, results, summed=summed)
    return _labelled(layer, passed, results, summed=summed)


def _linearised(layer: Layer, passed: Pass) -> tuple[Steps, Factors]:
    """Coefficients of all steps at once: every chunk needs them."""
    dtype = working_dtype(passed)
    prepared, steps = with_gate_axis(layer, dtype), arrange(passed, dtype)
    factors = cell_of(layer).factors(prepared, replay(prepared, steps).block())
    return steps, hold(factors, steps.valid)


def _diagonal_chunks(
    passed: Pass, steps: Steps, rows: Floats, chosen: Indices, per_chunk: int
) -> Iterator[_Chunk]:
    """Rows that enter at one step each, the latest first: those that take part are always the first ones."""
    gradient = rows_in_processing_order(rows, passed)[chosen]
    entry = entry_steps(steps, chosen, zero_output=passed.zero_output)
    latest_first = np.argsort(-chosen, kind="stable")
    for start in range(0, len(chosen), per_chunk):
        places = latest_first[start : start + per_chunk]
        yield _diagonal_chunk(places, gradient[places], entry[places], chosen[places])


def _diagonal_chunk(places: Indices, vectors: Floats, entries: Indices, own: Indices) -> _Chunk:
    def active(t: int) -> int:
        return int(np.count_nonzero(own >= t))

    def enter(t: int, hidden: Floats) -> None:
        here = entries[: len(hidden)] == t
        hidden[here] += vectors[: len(hidden)][here]

    return _Chunk(places, int(own[0]), active, enter)


def _full_chunks(
    passed: Pass, steps: Steps, rows: Floats, chosen: Indices, per_chunk: int
) -> Iterator[_Chunk]:
    """Rows that may enter at any step."""
    for start in range(0, len(rows), per_chunk):
        places = np.arange(start, min(start + per_chunk, len(rows)))
        gradient = np.array(rows_in_processing_order(rows[places], passed), steps.hidden.dtype)
        yield _full_chunk(places, move_to_valid(gradient, steps.valid, zero_output=passed.zero_output))


def _full_chunk(places: Indices, gradient: Floats) -> _Chunk:
    def active(t: int) -> int:
        return len(places)

    def enter(t: int, hidden: Floats) -> None:
        np.add(hidden, gradient[t], out=hidden)

    return _Chunk(places, len(gradient) - 1, active, enter)


def _follow(cell: Cell, factors: Factors, chunk: _Chunk, results: _Results, *, summed: bool) -> None:
    """Take one chunk from its last step to the first."""
    shape = (len(chunk.places), *results.hidden_sum.shape[1:])
    dtype = factors.columns.dtype
    carry, hidden = Carry.zeros(shape, dtype), np.empty(shape, dtype)
    columns = np.empty((*shape[:2], *factors.columns.shape[2:]), dtype)
    for t in range(chunk.last_step, -1, -1):
        rows = chunk.active(t)
        taking_part, arriving = carry.first(rows), hidden[:rows]
        np.copyto(arriving, taking_part.hidden)
        chunk.enter(t, arriving)
        squares = squared_norm(arriving)
        arriving[squares < vanished(dtype) ** 2] = 0
        places = chunk.places[:rows]
        results.hidden[:, places, t] = squares.T
        # h and c are independent here: the state-space dL/dc_t, before h_t = o·φ(c_t) adds its share.
        results.joint[:, places, t] = (squares + squared_norm(taking_part.cell)).T
        cell.pull(factors, t, arriving, columns[:rows], taking_part)
        if summed:
            results.hidden_sum[t] += arriving.sum(axis=0)
            results.cell_sum[t] += taking_part.total_cell.sum(axis=0)


def _labelled(layer: Layer, passed: Pass, results: _Results, *, summed: bool) -> LagRows:
    dtype = results.hidden_sum.dtype
    direction = slice(None, None, -1 if passed.runs_backward else 1)
    joint, hidden = (
        np.sqrt(squares[:, :, direction]).astype(dtype) for squares in (results.joint, results.hidden)
    )
    if not summed:
        return LagRows(joint, hidden)
    cell_gradient = in_input_time(results.cell_sum, passed) if layer.kind == "lstm" else None
    return LagRows(joint, hidden, in_input_time(results.hidden_sum, passed), cell_gradient)
