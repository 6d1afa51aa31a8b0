"""Processing order, masks and directions, which only this module handles.

Other modules of `cells` use time-major arrays in processing order: `arrange` converts to it, `in_input_time`
back.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from .layer import Floats, Mask, Pass
from .steps import Factors

BLOCK_BYTES = 2**18
RAISED, LARGEST_RAISE = 40, 120  # powers of two
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True)
class Steps:
    """A pass in processing order, time-major.

    `hidden` (time + 1, sample, unit) is the state before the first step, then after each step, carried over
    masked ones. `initial_cell` is (call, sample, unit), and `starts` the first step of each call. `valid`
    (time, sample) is None if no step is masked.
    """

    inputs: Floats
    hidden: Floats
    hidden_before: Floats
    initial_cell: Floats
    starts: npt.NDArray[np.intp]
    valid: Mask | None

    @property
    def count(self) -> int:
        """Number of time steps."""
        return int(self.inputs.shape[0])

    @property
    def windowed(self) -> bool:
        """Whether there are several calls."""
        return len(self.starts) > 1

    @property
    def stand_apart(self) -> bool:
        """Whether each of several steps starts from a state that is given."""
        return self.windowed and len(self.starts) == self.count


def arrange(passed: Pass, dtype: npt.DTypeLike) -> Steps:
    """Convert a pass to processing order and copy the state over masked steps."""
    shape = (passed.hidden.shape[0], passed.hidden.shape[2])
    valid = None
    if passed.valid is not None and not np.all(passed.valid):
        valid = processing_order(np.asarray(passed.valid, bool), passed)
    starts = np.cumsum((0, *passed.windows))[: len(passed.windows) or 1]
    initial_hidden = _of_calls(passed.initial, 0, (len(starts), *shape), dtype)
    hidden = np.empty((passed.hidden.shape[1] + 1, *shape), dtype)
    hidden[0] = initial_hidden[0]
    hidden[1:] = processing_order(passed.hidden, passed)
    if valid is not None:
        last_valid = np.where(valid, np.arange(1, len(valid) + 1)[:, None], 0)
        hidden[1:] = hidden[np.maximum.accumulate(last_valid), np.arange(shape[0])]
    inputs = np.asarray(processing_order(passed.inputs, passed), dtype)
    before = initial_hidden if 1 < len(starts) == len(hidden) - 1 else hidden[:-1]
    if passed.windows and before is not initial_hidden:
        before = before.copy()
        before[starts] = initial_hidden
    initial_cell = _of_calls(passed.initial, 1, initial_hidden.shape, dtype)
    return Steps(inputs, hidden, before, initial_cell, starts, valid)


def final_gradients(passed: Pass, steps: Steps) -> tuple[Floats, Floats]:
    """dL/dh and dL/dc after the last step of each call, beyond the output's, each (call, sample, unit)."""
    dtype, calls = steps.hidden.dtype, len(steps.starts)
    hidden = _of_calls(passed.final_gradients, 0, (calls, *steps.hidden.shape[1:]), dtype)
    return hidden, _of_calls(passed.final_gradients, 1, steps.initial_cell.shape, dtype)


def output_gradient(passed: Pass, dtype: npt.DTypeLike, scale: float | np.floating = 1.0) -> Floats:
    """∂L/∂out in processing order (time, sample, unit), scaled: a new array, 0 at steps without a loss."""
    samples, steps, units = passed.hidden.shape
    given, factor = passed.output_gradient, np.asarray(scale, dtype)
    gradient = (np.zeros if given is None or given.ndim == 2 else np.empty)((steps, samples, units), dtype)
    if given is not None:
        own = gradient[-1] if given.ndim == 2 else gradient
        np.multiply(given if given.ndim == 2 else processing_order(given, passed), factor, out=own)
    return gradient


def move_to_valid(gradient: Floats, valid: Mask | None, *, zero_output: bool) -> Floats:
    """Move the gradients (time, …, sample, unit) of masked outputs to the states they repeat, in place.

    A masked output repeats the last valid one, so its gradient belongs there; before the first valid step the
    output is a constant 0, and its gradient is dropped. Keras on JAX returns h_0 there instead; only this
    contribution is missing in dL/dh_0. With `zero_output` masked outputs are a constant 0 everywhere.
    """
    if valid is None:
        return gradient
    for t in range(len(gradient) - 1, -1, -1):
        masked = ~valid[t][:, None]
        if t > 0 and not zero_output:
            np.add(gradient[t - 1], gradient[t], out=gradient[t - 1], where=masked)
        np.copyto(gradient[t], 0, where=masked)
    return gradient


def raising(*gradients: Floats | None) -> float:
    """Return the power of two that scales the largest entry to 2⁴⁰, for vanishing gradients; 1 for zeros."""
    known = [values for values in gradients if values is not None]
    largest = max((float(max(one.max(initial=0), -one.min(initial=0))) for one in known), default=0.0)
    if largest == 0.0 or not np.isfinite(largest):
        return 1.0
    return float(np.ldexp(1.0, min(RAISED - int(np.frexp(largest)[1]), LARGEST_RAISE)))


def drop_vanished(*arrays: Floats) -> None:
    """Set numbers within 2¹⁶ of the smallest normal number to 0, in place.

    Their products are subnormal, for which processors need a hundred times longer.
    """
    for values in arrays:
        small = np.abs(values) < vanished(values.dtype)
        if small.any():
            np.copyto(values, 0, where=small)


@cache
def vanished(dtype: np.dtype[np.floating[Any]]) -> float:
    """Return the size below which a gradient counts as 0: 7.7e-34 in single precision."""
    return float(np.finfo(dtype).smallest_normal) * 2.0**16


def hold(factors: Factors, valid: Mask | None) -> Factors:
    """Make masked steps copy their state: no gates, full leak, full forget gate.

    Values are assigned, not multiplied by 0, because a cell may compute NaN on padding.
    """
    if valid is None or valid.all():
        return factors
    leak = np.zeros((*valid.shape, 1), factors.columns.dtype) if factors.leak is None else factors.leak
    held = factors._replace(
        leak=leak.copy(),
        forget=None if factors.forget is None else factors.forget.copy(),
        reset=None if factors.reset is None else factors.reset.copy(),
    )
    for values in (held.columns, held.hidden_to_cell, held.reset, held.reset_slope):
        if values is not None:
            values[~valid] = 0
    for values in (held.leak, held.forget):
        if values is not None:
            values[~valid] = 1
    return held


def room_for_cell(steps: Steps) -> tuple[Floats, Floats]:
    """Make c_{t-1}, known at the start of each call, and room for c_t."""
    if steps.stand_apart:
        return steps.initial_cell, np.empty_like(steps.initial_cell)
    states = np.empty((steps.count + 1, *steps.initial_cell.shape[1:]), steps.hidden.dtype)
    before = np.empty_like(states[1:]) if steps.windowed else states[:-1]
    before[steps.starts] = steps.initial_cell
    return before, states[1:]


def accumulate_cell(before: Floats, cell: Floats, forget: Floats, steps: Steps) -> None:
    """Scan c_t = f·c_{t-1} + i·g in place: `cell` holds i·g of each step, `before` gets c_{t-1}."""
    scratch, starts = np.empty_like(cell[0]), {*steps.starts.tolist()}
    continued = {*range(steps.count)} - starts if steps.windowed else set[int]()
    for t, (after, gate, given) in enumerate(zip(cell, forget, before, strict=True)):
        if t in continued:
            given[...] = cell[t - 1]
        np.multiply(gate, given, out=scratch)
        np.add(after, scratch, out=after)
        if steps.valid is not None:
            np.copyto(after, given, where=~steps.valid[t][:, None])


def blocks(count: int, bytes_per_step: int) -> Iterator[slice]:
    """Yield slices of steps, first to last, whose arrays fit into the processor's cache."""
    length = max(1, BLOCK_BYTES // max(1, bytes_per_step))
    for start in range(0, count, length):
        yield slice(start, min(start + length, count))


def in_input_time(values: Floats, passed: Pass) -> Floats:
    """Return a view (sample, time, …) in input time of (time, sample, …) in processing order."""
    return np.swapaxes(values[::-1] if passed.runs_backward else values, 0, 1)


def processing_order(values: npt.NDArray[Scalar], passed: Pass) -> npt.NDArray[Scalar]:
    """Return a view (time, sample, …) in processing order of (sample, time, …) in input time."""
    values = np.swapaxes(values, 0, 1)
    return values[::-1] if passed.runs_backward else values


def _of_calls(
    states: Sequence[Floats | None], place: int, shape: tuple[int, ...], dtype: npt.DTypeLike
) -> Floats:
    """Return what each sample has once for each call, (sample, [call,] unit), as (call, sample, unit)."""
    values = states[place] if place < len(states) else None
    if values is None:
        return np.broadcast_to(np.zeros((), dtype), shape)
    return np.asarray(values[None] if values.ndim == 2 else np.swapaxes(values, 0, 1), dtype, order="C")
