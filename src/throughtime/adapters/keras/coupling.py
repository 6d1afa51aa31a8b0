"""Finds out whether samples are coupled: whether what a sample does changes with the others of its batch.

BatchNormalization in training couples them, so does a contrastive loss. It is tried, not looked up: the
pass runs once more with every other sample replaced by a copy of the first. Shared by the adapters of every
Keras.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


class Result(Protocol):
    """Tensors of one pass and the gradients that exist, by what they are of."""

    @property
    def tensors(self) -> dict[str, Any]:
        """Outputs, logits and predictions among them."""

    @property
    def gradients(self) -> dict[str, Any]:
        """Likewise."""


Floats = npt.NDArray[np.float64]
_TOLERANCE = {"float16": 2e-2, "bfloat16": 1e-1}
_TOLERANCE_OTHERWISE = 1e-3


# The name of a tensor's dtype, and its first sample as an array; None where it holds no floats.
FirstSample = Callable[[Any], tuple[str, npt.NDArray[Any]] | None]


def couples(result: Result, run_among_copies: Callable[[], Result], size: int, first: FirstSample) -> bool:
    """Tell whether the first sample sees that the others are replaced by copies of it."""
    try:
        among_copies = run_among_copies()
    except MemoryError:
        raise
    except Exception:  # what cannot run on copies, and does on the batch, looks at more than one sample
        return True
    return is_coupled(result, among_copies, size, first)


def is_coupled(result: Result, among_copies: Result, size: int, first: FirstSample) -> bool:
    """Compare the first sample's outputs, and the directions of its gradients, in two passes.

    Of gradients only the direction counts: a loss that divides by the number of valid steps scales those
    of all samples alike.
    """
    outputs = _pairs(result.tensors, among_copies.tensors, size, first)
    gradients = _pairs(result.gradients, among_copies.gradients, size, first)
    return any(_error(*pair) > tolerance for *pair, tolerance in outputs) or any(
        _error(before, after * _scale(before, after)) > tolerance for before, after, tolerance in gradients
    )


def _pairs(
    before: dict[str, Any], after: dict[str, Any], size: int, first: FirstSample
) -> Iterator[tuple[Floats, Floats, float]]:
    """Give the first sample's part of every output and logits, flat, from both passes."""
    for key, tensor in before.items():
        is_compared = any(f".{name}." in f".{key}" for name in ("output", "logits", "prediction"))
        if not is_compared or not len(tensor.shape) or tensor.shape[0] != size:
            continue
        one, other = first(tensor), first(after[key])
        if one is not None and other is not None and np.isfinite(one[1]).all():
            yield _flat(one[1]), _flat(other[1]), _TOLERANCE.get(one[0], _TOLERANCE_OTHERWISE)


def _flat(array: npt.NDArray[Any]) -> Floats:
    return np.asarray(array, np.float64).ravel()


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
