"""What a loss does to each sample's share, and whether samples are coupled: declared, or found by trying.

Only the mean over samples is undone later, by the factor found here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from throughtime.adapters.records import MEAN, SUM, Array

from .library import is_float

if TYPE_CHECKING:
    from .dialect import Dialect, Result

COUPLED = "couples samples"
_MEANS = ("sum_over_batch_size", "mean", "auto")
_TOLERANCE = {"float16": 2e-2, "bfloat16": 1e-1}
_TOLERANCE_OTHERWISE = 1e-3


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
        weights = np.ones(size) if sample_weight is None else sample_weight.reshape(size, -1).mean(axis=1)
        return float(1.0 / weights.sum()), "mean over sample weights"
    return 1.0, f"not undone, outputs differ: {', '.join(how)}"


def couples(keras: Dialect, result: Result, run_among_copies: Callable[[], Result], size: int) -> bool:
    """Whether what the first sample does changes when the others are replaced by copies of it.

    BatchNormalization in training couples samples, so does a contrastive loss. Of gradients only the
    direction counts: a loss that divides by the number of valid steps scales those of all samples alike.
    """
    try:
        among_copies = run_among_copies()
    except MemoryError:
        raise
    except Exception:  # what cannot run on copies, and does on the batch, looks at more than one sample
        return True
    outputs = _pairs(keras, result.tensors, among_copies.tensors, size)
    gradients = _pairs(keras, result.gradients, among_copies.gradients, size)
    return any(_error(before, after) > tolerance for before, after, tolerance in outputs) or any(
        _error(before, after * _scale(before, after)) > tolerance for before, after, tolerance in gradients
    )


def _pairs(
    keras: Dialect, before: dict[str, Any], after: dict[str, Any], size: int
) -> Iterator[tuple[Array, Array, float]]:
    """Give the first sample's part of every output and logits, flat, from both passes."""
    for key, tensor in before.items():
        is_compared = any(f".{name}." in f".{key}" for name in ("output", "logits", "prediction"))
        is_by_sample = is_compared and len(tensor.shape) and tensor.shape[0] == size
        if not is_by_sample or not is_float(keras.dtype_of(tensor)):
            continue
        one, other = (np.asarray(keras.numpy(each[0]), float).ravel() for each in (tensor, after[key]))
        if np.isfinite(one).all():
            yield one, other, _TOLERANCE.get(keras.dtype_of(tensor), _TOLERANCE_OTHERWISE)


def _scale(before: Array, after: Array) -> float:
    """Positive number that brings `after` nearest to `before`."""
    square = float(after @ after)
    return max(0.0, float(before @ after) / square) if square > 0 else 1.0


def _error(before: Array, after: Array) -> float:
    size, error = float(np.linalg.norm(before)), float(np.linalg.norm(after - before))
    if not np.isfinite(error):
        return np.inf
    return error / size if size > 0 else float(error > 0)
