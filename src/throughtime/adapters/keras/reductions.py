"""What a loss does to each sample's share of it: read from its declaration, or found by trying.

Shared by the adapters of every Keras. Only the mean over samples is undone later, by the factor found here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from throughtime.adapters.records import MEAN, ONE_SAMPLE, SUM, Array

COUPLED = "couples samples"
UNTRIED = "not undone, the loss cannot be evaluated on single samples"
_MEANS = ("sum_over_batch_size", "mean", "auto")


@dataclass(frozen=True)
class Labels:
    """What the loss compares predictions with: structures of arrays, or of the framework's tensors."""

    x: Any
    y: Any
    sample_weight: Any


@dataclass(frozen=True)
class Reductions:
    """How a loss is reduced over samples.

    Attributes
    ----------
    declared : tuple of str or None
        Of each part of the loss; None where a plain function decides.
    is_certain : bool
        Keras' own losses do as they declare. A user's may reduce by themselves or couple samples, which
        only trying can tell.
    """

    declared: tuple[str, ...] | None
    is_certain: bool


@dataclass(frozen=True)
class Attempt:
    """One batch that a loss can be tried on.

    Attributes
    ----------
    labels : Labels
    size : int
        Number of samples.
    weight : ndarray (sample, …) or None
        Sample weights that Keras puts on.
    predictions : callable () -> structure of tensors
    evaluate, rows_of : see `tried_factor`
    has_data_loss : callable () -> bool
        Whether anything but the model's layers adds to the loss.
    couples : callable () -> bool
        Whether what one sample does changes with the others.
    """

    labels: Labels
    size: int
    weight: Array | None
    predictions: Callable[[], Any]
    evaluate: Callable[[Labels, Any], float]
    rows_of: Callable[[Any, Sequence[int]], Any]
    has_data_loss: Callable[[], bool]
    couples: Callable[[], bool]


class Trials:
    """What trying has told of one program's loss; it is done on the first batch."""

    def __init__(self) -> None:
        self._tried: tuple[float, str] | None = None
        self._is_coupled: bool | None = None

    def how_reduced(self, how: Reductions, attempt: Attempt) -> tuple[float, str]:
        """Find what the loss puts on each sample's gradient, and say in words what was done about it."""
        reduced, told = self._factor(how, attempt)
        if self._is_coupled is None:
            self._is_coupled = attempt.size > 1 and attempt.couples()
        if self._is_coupled and not told.startswith(COUPLED):
            told = f"{COUPLED}: what one sample does changes with the others of its batch; {told} undone"
        return reduced, told

    def _factor(self, how: Reductions, attempt: Attempt) -> tuple[float, str]:
        if how.declared is not None and how.is_certain:
            return factor(how.declared, attempt.weight, attempt.size)
        if not attempt.has_data_loss():
            return 1.0, "not undone, the whole loss is added by layers"
        if self._tried is None:
            # Where Keras puts weights on, they are no part of what a user's loss does by itself.
            labels = attempt.labels if how.declared is None else replace(attempt.labels, sample_weight=None)
            predictions = attempt.predictions()
            self._tried = tried_factor(labels, predictions, attempt.evaluate, attempt.size, attempt.rows_of)
        if how.declared is not None and self._tried[1] in (MEAN, UNTRIED):
            return factor(how.declared, attempt.weight, attempt.size)
        return self._tried


def factor(how: tuple[str, ...], sample_weight: Array | None, size: int) -> tuple[float, str]:
    """Find what the loss multiplies a sample's own gradient by, and say in words how it reduces samples.

    Parameters
    ----------
    how : as `Reductions` has it
    sample_weight : ndarray (sample, …) or None
    size : int
        Number of samples.
    """
    if all(one in _MEANS for one in how):
        return 1.0 / size, MEAN
    if all(one in ("sum", "none") for one in how):
        return 1.0, SUM
    if all(one == "mean_with_sample_weight" for one in how):
        return _weighted(sample_weight, size), "mean over sample weights"
    return 1.0, f"not undone, outputs differ: {', '.join(how)}"


def _weighted(sample_weight: Array | None, size: int) -> float:
    if sample_weight is None:
        return 1.0 / size
    return float(1.0 / sample_weight.reshape(size, -1).mean(axis=1).sum())


def tried_factor(
    labels: Labels,
    predictions: Any,
    evaluate: Callable[[Labels, Any], float],
    size: int,
    rows_of: Callable[[Any, Sequence[int]], Any],
) -> tuple[float, str]:
    """Find the factor by trying: what a sample loses alone, beside its copy and beside another sample.

    Parameters
    ----------
    rows_of : callable
        Takes samples, by their numbers, out of a structure of the framework's tensors.
    """
    if size == 1:
        return 1.0, ONE_SAMPLE

    def loss_of(*rows: int) -> float:
        x, y, weight = (rows_of(part, rows) for part in (labels.x, labels.y, labels.sample_weight))
        return evaluate(Labels(x, y, weight), rows_of(predictions, rows))

    try:
        single = np.array([loss_of(0), loss_of(1)])
        double = np.array([loss_of(0, 0), loss_of(1, 1)])
        both = loss_of(0, 1)
    except Exception:  # a user's loss may do anything, and a capture can do without
        return 1.0, UNTRIED
    return _factor_of(single, double, both, size)


def _factor_of(single: Array, double: Array, both: float, size: int) -> tuple[float, str]:
    """Tell mean, sum and coupling apart by what two samples lose: alone, beside a copy, and together."""
    if not np.isfinite([*single, *double, both]).all():
        return 1.0, "not undone, the loss is not finite"
    tolerance = 1e-4 * max(*abs(single), *abs(double), abs(both), 1e-30)
    if abs(both - double.mean()) > tolerance:
        return 1.0, f"{COUPLED}: together they lose neither the mean nor the sum of each, nothing undone"
    if max(abs(double - single)) <= tolerance:
        return 1.0 / size, MEAN
    if max(abs(double - 2 * single)) <= tolerance:
        return 1.0, SUM
    return 1.0, "not undone, parts of the loss differ"
