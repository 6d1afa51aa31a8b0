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
_ROUNDS_TO_ZERO = 2.0**-25  # half of float16's smallest number


def is_needed(model: Any) -> bool:
    """Whether some layer computes in float16."""
    return any(getattr(layer, "compute_dtype", "") == "float16" for layer in every_layer(model))


def largest_finite(run: Callable[[Any], Result]) -> Result:
    """Run with the largest scale that lets every gradient be finite, and unscale them.

    Parameters
    ----------
    run : callable
        Takes the scale as a tensor.
    """
    for scale in _SCALES:
        result = run(keras.ops.convert_to_tensor(scale, "float32"))
        if not result.gradients or _is_finite(result.gradients):
            return _unscaled(result, scale)
        if not _is_finite({"loss": result.tensors["loss"]}):
            break  # no scale helps
    return _unscaled(run(keras.ops.ones((), "float32")), 1.0)


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
