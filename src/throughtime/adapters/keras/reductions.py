"""How a loss scales each sample's share, and whether samples are coupled: declared, or found by trying.

Only the mean over samples is undone later, by the factor found here.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from throughtime.adapters.records import MEAN, SUM, Array

from .contracts import Tensor
from .dialect import Result
from .library import dtype_of, is_float, numpy

COUPLED = "couples samples"
_MEANS = ("sum_over_batch_size", "mean", "auto")
_TOLERANCE = {"float16": 2e-2, "bfloat16": 1e-1}

# flat, by what they are, with the tolerance of their dtype
Compared = dict[str, tuple[Array, float]]


@dataclass(frozen=True)
class Labels:
    """The targets of a loss: structures of arrays, or of the framework's tensors."""

    x: object
    y: object
    sample_weight: object


@dataclass(frozen=True)
class Reductions:
    """How a loss is reduced over samples, as each of its parts has `declared`; None for a plain function.

    `is_certain` of Keras' own losses; a user's may reduce by themselves or couple samples, which only trying
    can show.
    """

    declared: tuple[str, ...] | None
    is_certain: bool


def factor(how: tuple[str, ...], sample_weight: Array | None, size: int) -> tuple[float, str]:
    """Find what a loss declared as `how` multiplies a sample's own gradient by, and how it reduces them."""
    if all(one in _MEANS for one in how):
        return 1.0 / size, MEAN
    if all(one in ("sum", "none") for one in how):
        return 1.0, SUM
    if all(one == "mean_with_sample_weight" for one in how):
        weights = np.ones(size) if sample_weight is None else sample_weight.reshape(size, -1).mean(axis=1)
        return float(1.0 / weights.sum()), "mean over sample weights"
    return 1.0, f"not undone, outputs differ: {', '.join(how)}"


def couples(batch: tuple[Compared, Compared], copies: tuple[Compared, Compared]) -> bool:
    """Whether what the first sample does changes when the others are replaced by copies of it.

    BatchNormalization in training couples samples, so does a contrastive loss. Of gradients only the
    direction counts: a loss that divides by the number of valid steps scales those of all samples alike.
    The arguments are what `first_sample` returns.
    """
    outputs, gradients = (_pairs(*each) for each in zip(batch, copies, strict=True))
    return any(_error(before, after) > tolerance for before, after, tolerance in outputs) or any(
        _error(before, after * _scale(before, after)) > tolerance for before, after, tolerance in gradients
    )


def first_sample(result: Result, size: int) -> tuple[Compared, Compared]:
    """Copy the first sample's part of every output and logits, flat, with the tolerance of its dtype."""

    def parts(found: dict[str, Tensor]) -> Compared:
        compared = {
            key: tensor
            for key, tensor in found.items()
            if {"output", "logits", "prediction"} & {*key.split(".")} and tuple(tensor.shape)[:1] == (size,)
        }
        return {
            key: (np.array(numpy(tensor[0]), float).ravel(), _TOLERANCE.get(dtype_of(tensor), 1e-3))
            for key, tensor in compared.items()
            if is_float(dtype_of(tensor))
        }

    return parts(result.tensors), parts(result.gradients)


def _pairs(before: Compared, after: Compared) -> Iterator[tuple[Array, Array, float]]:
    for key, (one, tolerance) in before.items():
        if np.isfinite(one).all():
            yield one, after[key][0], tolerance


def _scale(before: Array, after: Array) -> float:
    """Positive number that brings `after` nearest to `before`."""
    square = float(after @ after)
    return max(0.0, float(before @ after) / square) if square > 0 else 1.0


def _error(before: Array, after: Array) -> float:
    size, error = float(np.linalg.norm(before)), float(np.linalg.norm(after - before))
    if not np.isfinite(error):
        return np.inf
    return error / size if size > 0 else float(error > 0)
