"""Loss scaling for models that compute in float16, whose range ends where many gradients lie.

Gradients are taken of a scaled loss, as training takes them, and given back unscaled in float32. Powers of
two change no digit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from throughtime._record import Array

from .arrays import numpy
from .internals import every_layer
from .library import is_a
from .program import Result

# Keras' own initial scale first; further down where the gradients overflow.
_SCALES = tuple(2.0**exponent for exponent in (15, 10, 5, 0, -5, -10))
_SMALL = 2.0**-4  # half of float16's range lies below
_ROUNDS_TO_ZERO = 2.0**-25  # half of float16's smallest number


def is_needed(model: Any) -> bool:
    """Whether some layer computes in float16."""
    return any(layer.compute_dtype == "float16" for layer in every_layer(model))


def run_scaled(run: Callable[[Any], Result]) -> Result:
    """Run with a scale that lets every gradient be finite and none too small, and unscale them.

    Parameters
    ----------
    run : callable
        Takes the scale, a scalar array.
    """
    for scale in _SCALES:
        result = run(np.float32(scale))
        if _is_finite(result.gradients):
            return _with_small_ones_raised(run, result, scale)
        if not np.isfinite(result.tensors["loss"]):
            break  # no scale helps
    return _unscaled(run(np.float32(1.0)), 1.0)


def _with_small_ones_raised(run: Callable[[Any], Result], result: Result, scale: float) -> Result:
    """Take a larger scale where even the largest gradient is small, unless something overflows then."""
    largest = max((float(np.abs(numpy(g)).max(initial=0)) for g in result.gradients.values()), default=0.0)
    if 0 < largest < _SMALL:
        higher = scale * 2.0 ** -np.floor(np.log2(largest))
        raised = run(np.float32(higher))
        if _is_finite(raised.gradients):
            return _unscaled(raised, higher)
    return _unscaled(result, scale)


def _is_finite(gradients: dict[str, Array]) -> bool:
    return all(bool(np.isfinite(numpy(gradient)).all()) for gradient in gradients.values())


def _unscaled(result: Result, scale: float) -> Result:
    gradients = {
        key: numpy(gradient).astype(np.promote_types(numpy(gradient).dtype, np.float32)) / np.float32(scale)
        for key, gradient in result.gradients.items()
    }
    return Result(result.tensors, gradients)


def of_training(model: Any) -> float:
    """Return the factor by which the model's optimizer scales its loss, 1 without."""
    optimizer: Any = getattr(model, "optimizer", None)
    if is_a(optimizer, "LossScaleOptimizer", "LossScaleOptimizerV3"):
        return float(optimizer.initial_scale)
    return 1.0


def underflow(gradient: Array, scale: float) -> float:
    """Share of a gradient's elements that are not 0 and round to 0 in float16 at the scale of training."""
    size = np.abs(gradient) * scale
    return float(np.mean((size > 0) & (size <= _ROUNDS_TO_ZERO)))
