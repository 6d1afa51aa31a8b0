"""Finds out whether samples are coupled: whether what a sample does changes with the others of its batch.

BatchNormalization in training couples them, so does a contrastive loss. It is tried, not looked up: the
pass runs once more with every other sample replaced by a copy of the first (`tensors.with_copies`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from .program import Result

Floats = npt.NDArray[np.float64]
_TOLERANCE = {"float16": 2e-2, "bfloat16": 1e-1}
_TOLERANCE_OTHERWISE = 1e-3


def is_coupled(result: Result, among_copies: Result, size: int) -> bool:
    """Compare the first sample's outputs, and the directions of its gradients, in two passes.

    Of gradients only the direction counts: a loss that divides by the number of valid steps scales those
    of all samples alike.
    """
    outputs = _pairs(result.tensors, among_copies.tensors, size)
    gradients = _pairs(result.gradients, among_copies.gradients, size)
    return any(_error(*pair) > tolerance for *pair, tolerance in outputs) or any(
        _error(before, after * _scale(before, after)) > tolerance for before, after, tolerance in gradients
    )


def _pairs(
    before: dict[str, Any], after: dict[str, Any], size: int
) -> Iterator[tuple[Floats, Floats, float]]:
    """Give the first sample's part of every output and logits, flat, from both passes."""
    for key, tensor in before.items():
        is_compared = any(f".{name}." in f".{key}" for name in ("output", "logits", "prediction"))
        if not is_compared or not len(tensor.shape) or tensor.shape[0] != size:
            continue
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        if keras.backend.is_float_dtype(dtype):
            one, other = _first(tensor), _first(after[key])
            if np.isfinite(one).all():
                yield one, other, _TOLERANCE.get(dtype, _TOLERANCE_OTHERWISE)


def _first(tensor: Any) -> Floats:
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(tensor[0], "float32")), np.float64).ravel()


def _scale(before: Floats, after: Floats) -> float:
    """Positive number that brings `after` nearest to `before`."""
    square = float(after @ after)
    return max(0.0, float(before @ after) / square) if square > 0 else 1.0


def _error(before: Floats, after: Floats) -> float:
    size = float(np.linalg.norm(before))
    error = float(np.linalg.norm(after - before))
    if not np.isfinite(error):
        return np.inf
    return error / size if size > 0 else float(error > 0)
