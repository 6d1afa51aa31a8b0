"""Time: the only place that knows processing order, masks and directions.

Every other module of `cells` sees time-major arrays in processing order, which `arrange` makes and
`in_input_time` undoes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
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

    Attributes
    ----------
    inputs : ndarray (time, sample, feature)
    hidden : ndarray (time + 1, sample, unit)
        The state before the first step, then after each step; carried over masked ones.
    initial_cell : ndarray (sample, unit)
    valid : ndarray of bool (time, sample) or None
        None where no step is masked.
    """

    inputs: Floats
    hidden: Floats
    initial_cell: Floats
    valid: Mask | None

    @property
    def count(self) -> int:
        """Number of time steps."""
        return int(self.inputs.shape[0])

    def valid_at(self, t: int) -> Mask | None:
        """Which samples step t counts for (sample,); None for all."""
        return None if self.valid is None else self.valid[t]


def arrange(passed: Pass, dtype: npt.DTypeLike) -> Steps:
    """Bring a pass into processing order and carry the state over masked steps."""
    shape = (passed.hidden.shape[0], passed.hidden.shape[2])
    valid = None
    if passed.valid is not None and not np.all(passed.valid):
        valid = _processing_order(np.asarray(passed.valid, bool), passed)
    hidden = np.empty((passed.hidden.shape[1] + 1, *shape), dtype)
    hidden[0] = _or_zeros(passed.initial_hidden, shape, dtype)
    hidden[1:] = _processing_order(passed.hidden, passed)
    if valid is not None:
        last_valid = np.where(valid, np.arange(1, len(valid) + 1)[:, None], 0)
        hidden[1:] = hidden[np.maximum.accumulate(last_valid), np.arange(shape[0])]
    inputs = np.asarray(_processing_order(passed.inputs, passed), dtype)
    return Steps(inputs, hidden, _or_zeros(passed.initial_cell, shape, dtype), valid)


def final_gradients(passed: Pass, dtype: npt.DTypeLike) -> tuple[Floats, Floats]:
    """dL/dh and dL/dc after the last processed step, beyond the output's, each (sample, unit)."""
    shape = (passed.hidden.shape[0], passed.hidden.shape[2])
    return (
        _or_zeros(passed.final_hidden_gradient, shape, dtype),
        _or_zeros(passed.final_cell_gradient, shape, dtype),
    )


def output_gradient(passed: Pass, dtype: npt.DTypeLike) -> Floats:
    """∂L/∂out in processing order (time, sample, unit): a fresh array, zeros where the loss asks nothing."""
    samples, steps, units = passed.hidden.shape
    gradient = np.zeros((steps, samples, units), dtype)
    if passed.output_gradient is not None and passed.output_gradient.ndim == 2:
        gradient[-1] = passed.output_gradient
    elif passed.output_gradient is not None:
        gradient[...] = _processing_order(passed.output_gradient, passed)
    return gradient


def move_to_valid(gradient: Floats, valid: Mask | None, *, zero_output: bool) -> Floats:
    """Move the gradients of masked outputs to the states they repeat, in place.

    A masked output repeats the last valid one, so its gradient belongs there; before the first valid step
    the output is a constant 0 and its gradient goes nowhere. Keras on JAX emits h_0 there instead: for
    this share, and for it alone, dL/dh_0 misses the sum of those output gradients.

    Parameters
    ----------
    gradient : ndarray (time, …, sample, unit), overwritten
    valid : ndarray of bool (time, sample) or None
    zero_output : bool
        Masked outputs are a constant 0 everywhere.
    """
    if valid is None:
        return gradient
    for t in range(len(gradient) - 1, -1, -1):
        masked = ~valid[t][:, None]
        if t > 0 and not zero_output:
            np.add(gradient[t - 1], gradient[t], out=gradient[t - 1], where=masked)
        np.copyto(gradient[t], 0, where=masked)
    return gradient


def raising(*gradients: Floats) -> float:
    """Power of two that lifts the largest entry to 2⁴⁰, so that what fades has far to fall; 1 for zeros."""
    largest = max((float(np.abs(values).max(initial=0)) for values in gradients), default=0.0)
    if largest == 0.0 or not np.isfinite(largest):
        return 1.0
    return float(np.ldexp(1.0, min(RAISED - int(np.frexp(largest)[1]), LARGEST_RAISE)))


def drop_vanished(values: Floats) -> None:
    """Set to 0, in place, what is within 2¹⁶ of the smallest normal number.

    Products of these are subnormal, and processors take a hundred times longer for those.
    """
    np.copyto(values, 0, where=np.abs(values) < vanished(values.dtype))


def vanished(dtype: np.dtype[np.floating[Any]]) -> float:
    """Size below which a gradient counts as 0: 7.7e-34 in single precision."""
    return float(np.finfo(dtype).smallest_normal) * 2.0**16


def entry_steps(steps: Steps, loss_steps: npt.NDArray[np.intp], *, zero_output: bool) -> npt.NDArray[np.intp]:
    """Step at which the gradient of output s enters the state, −1 for nowhere: (loss_time, sample)."""
    samples = steps.hidden.shape[1]
    every = np.broadcast_to(np.arange(steps.count)[:, None], (steps.count, samples))
    if steps.valid is None:
        return every[loss_steps]
    entry = np.where(steps.valid, every, -1)
    return (entry if zero_output else np.maximum.accumulate(entry))[loss_steps]


def hold(factors: Factors, valid: Mask | None) -> Factors:
    """Make masked steps copy their state: no gates, full leak, full forget gate.

    Assignment rather than a product with 0: what a cell computed on padding may be NaN.
    """
    if valid is None or valid.all():
        return factors
    masked = ~valid
    leak = np.zeros((*valid.shape, 1), factors.columns.dtype) if factors.leak is None else factors.leak
    for values in (factors.columns, factors.hidden_to_cell, factors.reset, factors.reset_slope):
        if values is not None:
            values[masked] = 0
    for values in (leak, factors.forget):
        if values is not None:
            values[masked] = 1
    return replace(factors, leak=leak)


def accumulate_cell(cell: Floats, forget: Floats, valid: Mask | None) -> None:
    """Scan c_t = f·c_{t-1} + i·g in place: `cell` (time + 1, …) holds c_0, then i·g of each step."""
    scratch = np.empty_like(cell[0])
    for t, (before, after) in enumerate(pairwise(cell)):
        np.multiply(forget[t], before, out=scratch)
        np.add(after, scratch, out=after)
        if valid is not None:
            np.copyto(after, before, where=~valid[t][:, None])


def blocks(count: int, bytes_per_step: int) -> Iterator[slice]:
    """Yield runs of steps whose arrays stay in the processor's cache together, first to last."""
    length = max(1, BLOCK_BYTES // max(1, bytes_per_step))
    for start in range(0, count, length):
        yield slice(start, min(start + length, count))


def forward_scan(
    steps: Steps, initial: Sequence[Floats], step: Callable[[int, Sequence[Floats]], Sequence[Floats]]
) -> list[Sequence[Floats]]:
    """Run states that the kernel did not emit over time and masks, before the first step and after each.

    Parameters
    ----------
    initial : sequence of ndarray (sample, width)
    step : callable
        Takes (t, states before) and returns the states after.
    """
    states = [initial]
    for t in range(steps.count):
        valid, before = steps.valid_at(t), states[-1]
        states.append([where_valid(*pair, valid) for pair in zip(step(t, before), before, strict=True)])
    return states


def reverse_scan(
    steps: Steps,
    gradient: Floats,
    final: Sequence[Floats],
    step_back: Callable[[int, Sequence[Floats]], Sequence[Floats]],
    *,
    zero_output: bool,
) -> tuple[list[Sequence[Floats]], Sequence[Floats]]:
    """Backpropagation through time over masks, for any number of states; the first one is emitted.

    Parameters
    ----------
    gradient : ndarray (time, sample, unit)
        ∂L/∂out, masked outputs included.
    final : sequence of ndarray (sample, width)
        dL/d(each state after the last step), beyond what reaches it through the output.
    step_back : callable
        Takes (t, dL/d(each state after step t)) and returns dL/d(each state before); what it returns for
        samples that are masked at t is not used.

    Returns
    -------
    list of sequences of ndarray (sample, width)
        dL/d(each state after step t), the state adjoint η itself where masked.
    sequence of ndarray (sample, width)
        dL/d(each state before the first step).
    """
    eta = final
    carry = np.zeros_like(eta[0])
    arrived: list[Sequence[Floats]] = []
    for t in range(steps.count - 1, -1, -1):
        valid = steps.valid_at(t)
        entering = gradient[t] if zero_output else gradient[t] + carry
        arriving = [where_valid(eta[0] + entering, eta[0], valid), *eta[1:]]
        before = step_back(t, arriving)
        carry = where_valid(np.zeros_like(carry), 0 if zero_output else entering, valid)
        eta = [where_valid(*pair, valid) for pair in zip(before, arriving, strict=True)]
        arrived.append(arriving)
    return arrived[::-1], eta


def where_valid(values: Floats, otherwise: Floats | float, valid: Mask | None) -> Floats:
    """Replace what a step gave for samples that are masked there: a product with 0 would keep their NaN.

    Parameters
    ----------
    values : ndarray (sample, …)
    valid : ndarray of bool (sample,) or None
    """
    if valid is None:
        return values
    return np.where(valid.reshape(-1, *(1,) * (values.ndim - 1)), values, otherwise)


def in_input_time(values: Floats, passed: Pass) -> Floats:
    """Turn (time, sample, …) in processing order into (sample, time, …) in input time: a view."""
    return np.swapaxes(values[::-1] if passed.runs_backward else values, 0, 1)


def rows_in_processing_order(rows: Floats, passed: Pass) -> Floats:
    """Turn (…, sample, time, unit) in input time into (time, …, sample, unit) in processing order: a view."""
    rows = np.moveaxis(rows, -2, 0)
    return rows[::-1] if passed.runs_backward else rows


def states_in_processing_order(values: Floats, initial: Floats, passed: Pass) -> Floats:
    """Put a state before the first step and after each, (time + 1, sample, unit), from input time."""
    later = np.asarray(_processing_order(values, passed), initial.dtype)
    return np.concatenate([initial[None], later])


def processing_steps(passed: Pass, input_steps: Sequence[int] | None) -> npt.NDArray[np.intp]:
    """Where steps counted in input time stand in processing order; all of them for None."""
    count = passed.hidden.shape[1]
    places = np.arange(count) if input_steps is None else np.arange(count)[np.asarray(input_steps, int)]
    return count - 1 - places if passed.runs_backward else places


def _processing_order(values: npt.NDArray[Scalar], passed: Pass) -> npt.NDArray[Scalar]:
    """Turn (sample, time, …) in input time into (time, sample, …) in processing order: a view."""
    values = np.swapaxes(values, 0, 1)
    return values[::-1] if passed.runs_backward else values


def further_states(
    passed: Pass, given: Sequence[Floats | None], count: int, dtype: npt.DTypeLike
) -> list[Floats]:
    """Arrays (sample, width) for the states beyond the first, zeros as wide as the hidden state for None."""
    shape = (passed.hidden.shape[0], passed.hidden.shape[2])
    return [_or_zeros(values, shape, dtype) for values in [*given, *(None,) * count][:count]]


def _or_zeros(values: Floats | None, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Floats:
    return np.zeros(shape, dtype) if values is None else np.array(values, dtype)
