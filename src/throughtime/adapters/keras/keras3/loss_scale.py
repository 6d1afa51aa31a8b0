"""Loss scaling for models that compute in float16, whose range ends where many gradients lie.

Gradients are taken of a scaled loss, as training takes them, and given back unscaled in float32. Powers of
two change no digit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from .internals import every_layer
from .program import Result

# Keras' own initial scale first; further down where the gradients overflow.
_SCALES = tuple(2.0**exponent for exponent in (15, 10, 5, 0, -5, -10))
_SMALL = 2.0**-4  # half of float16's range lies below
_ROUNDS_TO_ZERO = 2.0**-25  # half of float16's smallest number


def is_needed(model: Any) -> bool:
    """Whether some layer computes in float16."""
    return any(getattr(layer, "compute_dtype", "") == "float16" for layer in every_layer(model))


def run_scaled(run: Callable[[Any], Result]) -> Result:
    """Run with a scale that lets every gradient be finite and none too small, and unscale them.

    Parameters
    ----------
    run : callable
        Takes the scale as a tensor.
    """
    for scale in _SCALES:
        result = run(_tensor(scale))
        if _is_finite(result.gradients):
            return _with_small_ones_raised(run, result, scale)
        if not _is_finite({"loss": result.tensors["loss"]}):
            break  # no scale helps
    return _unscaled(run(_tensor(1.0)), 1.0)


def _with_small_ones_raised(run: Callable[[Any], Result], result: Result, scale: float) -> Result:
    """Take a larger scale where even the largest gradient is small, unless something overflows then."""
    largest = max((float(keras.ops.max(keras.ops.abs(g))) for g in result.gradients.values()), default=0.0)
    if 0 < largest < _SMALL:
        higher = scale * 2.0 ** -np.floor(np.log2(largest))
        raised = run(_tensor(higher))
        if _is_finite(raised.gradients):
            return _unscaled(raised, higher)
    return _unscaled(result, scale)


def _tensor(scale: float) -> Any:
    return keras.ops.convert_to_tensor(scale, "float32")


def _is_finite(tensors: dict[str, Any]) -> bool:
    return all(bool(keras.ops.all(keras.ops.isfinite(tensor))) for tensor in tensors.values())


def _unscaled(result: Result, scale: float) -> Result:
    gradients = {key: _wide(gradient) / scale for key, gradient in result.gradients.items()}
    return Result(result.tensors, gradients)


def _wide(gradient: Any) -> Any:
    is_half = keras.backend.standardize_dtype(gradient.dtype) in ("float16", "bfloat16")
    return keras.ops.cast(gradient, "float32") if is_half else gradient


def of_training(model: Any) -> float:
    """Return the factor by which the model's optimizer scales its loss, 1 without."""
    optimizer = getattr(model, "optimizer", None)
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return float(optimizer.dynamic_scale) if optimizer.built else float(optimizer.initial_scale)
    return float(getattr(optimizer, "loss_scale_factor", None) or 1.0)


def underflow(gradient: np.ndarray[Any, Any], scale: float) -> float:
    """Share of a gradient's elements that are not 0 and round to 0 in float16 at the scale of training."""
    size = np.abs(gradient) * scale
    return float(np.mean((size > 0) & (size <= _ROUNDS_TO_ZERO)))
