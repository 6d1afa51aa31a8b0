"""The one number that is differentiated, and what it does to each sample's share of it.

A loss is any callable `(output, y)`; how it treats samples is found by trying, on two of them.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from throughtime._errors import LossError, ThroughTimeError
from throughtime.adapters.records import MEAN, ONE_SAMPLE, SUM

_UNDONE = "nothing undone"
_TRIED = 4  # samples looked at for two whose losses are finite
Data = tuple[Any, Any, Any]  # output, y, sample weights


def check_loss(loss: Any) -> None:
    """Refuse what is no loss.

    Raises
    ------
    LossError
    """
    if loss is None:
        raise LossError(
            "A JAX model has no loss of its own: pass loss=, a function (output, y) that returns a scalar or "
            "one value per sample, such as optax.squared_error."
        )
    if not callable(loss):
        raise LossError(f"loss= takes a function (output, y), not {type(loss).__name__}.")


def total(loss: Any, output: Any, y: Any, sample_weight: Any) -> Any:
    """Evaluate the scalar loss of a batch; values per sample are averaged.

    Raises
    ------
    LossError
    """
    try:
        value = loss(output, y)
    except ThroughTimeError:
        raise
    except Exception as error:
        raise LossError(
            f"The loss could not be evaluated: {type(error).__name__}: {error}\n"
            f"It is called as loss(output, y). The output has shape {_shapes(output)}, y {_shapes(y)}."
        ) from error
    if not hasattr(value, "dtype") or not jnp.issubdtype(value.dtype, jnp.floating):
        found = f"an array of {value.dtype}" if hasattr(value, "dtype") else type(value).__name__
        raise LossError(f"The loss has to return a real floating-point array, it returned {found}.")
    if sample_weight is not None:
        value = _weighted(value, jnp.asarray(sample_weight))
    return value.mean()


def _weighted(value: Any, weight: Any) -> Any:
    if value.ndim == 0 or value.shape[: weight.ndim] != weight.shape:
        raise LossError(
            f"sample_weight has shape {weight.shape}, the values of the loss {value.shape}: their first axes "
            "must agree. Let the loss return a value for each sample, or for each sample and step."
        )
    return value * weight.astype(value.dtype).reshape(*weight.shape, *(1,) * (value.ndim - weight.ndim))


def _shapes(structure: Any) -> str:
    return ", ".join(str(tuple(np.shape(leaf))) for leaf in jax.tree.leaves(structure)) or "()"


def tried_factor(
    evaluate: Callable[[Data], float], rows: Callable[..., Data], samples: int
) -> tuple[float, str]:
    """Find what the loss multiplies a sample's own gradient by, and say in words how it reduces samples.

    Parameters
    ----------
    evaluate : callable (output, y, sample weights) -> float
    rows : callable (*rows) -> those samples of the output, y and the weights
    samples : int
    """
    if samples == 1:
        return 1.0, ONE_SAMPLE
    try:
        alone = {row: evaluate(rows(row)) for row in range(min(samples, _TRIED))}
        # One sample may be spoiled: a NaN is no reason to scale the others differently.
        a, b = ([row for row, value in alone.items() if isfinite(value)] + [0, 1])[:2]
        first, second, both = alone[a], alone[b], evaluate(rows(a, b))
    except (ThroughTimeError, TypeError, ValueError, IndexError) as error:
        return 1.0, f"not known: the loss fails on two samples alone ({type(error).__name__}), {_UNDONE}"
    if not isfinite(first + second + both):
        return 1.0, f"not known: the loss is not finite, {_UNDONE}"
    tolerance = 1e-4 * max(abs(first), abs(second), abs(both), 1e-30)
    if abs(both - (first + second) / 2) <= tolerance:
        return 1.0 / samples, MEAN
    if abs(both - (first + second)) <= tolerance:
        return 1.0, SUM
    return 1.0, f"couples samples: two together lose neither the mean nor the sum of each, {_UNDONE}"
