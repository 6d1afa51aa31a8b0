"""Loss scaling for models that compute in float16, whose range ends where many gradients lie.

Gradients are taken of a scaled loss, as training takes them, and returned unscaled in float32. Powers of
two change no digit.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from throughtime.adapters.records import Array

from .contracts import Model, Tensor
from .dialect import Result
from .library import every_layer, is_a, numpy

# Keras' own initial scale first; further down where the gradients overflow.
_SCALES = tuple(2.0**exponent for exponent in (15, 10, 5, 0, -5, -10))
_SMALL = 2.0**-4  # half of float16's range lies below
_ROUNDS_TO_ZERO = 2.0**-25  # half of float16's smallest number


def is_needed(model: Model) -> bool:
    """Whether some layer computes in float16."""
    return any(getattr(layer, "compute_dtype", "") == "float16" for layer in every_layer(model))


def scale_of_training(model: Model) -> float:
    """Return the factor by which a model's optimizer scales its loss, 1 without."""
    optimizer: Any = getattr(model, "optimizer", None)
    if not is_a(optimizer, "LossScaleOptimizer", "LossScaleOptimizerV3"):
        return float(getattr(optimizer, "loss_scale_factor", None) or 1.0)
    is_dynamic = hasattr(optimizer, "dynamic_scale") and optimizer.built  # in Keras 3
    return float(optimizer.dynamic_scale if is_dynamic else optimizer.initial_scale)


def run_scaled(run: Callable[[Array], Result]) -> Result:
    """Run with a scale, an array, that lets every gradient be finite and none too small; unscale them."""

    def run_at(scale: float) -> tuple[Result, dict[str, Array]]:
        result = run(np.asarray(scale, np.float32))
        return result, {key: numpy(gradient) for key, gradient in result.gradients.items()}

    for scale in _SCALES:
        result, gradients = run_at(scale)
        if _is_finite(gradients):
            largest = max((float(np.abs(array).max(initial=0)) for array in gradients.values()), default=0.0)
            if 0 < largest < _SMALL:  # a larger scale, unless something overflows then
                higher = scale * 2.0 ** -np.floor(np.log2(largest))
                raised, found = run_at(higher)
                if _is_finite(found):
                    return _unscaled(raised, found, higher)
            return _unscaled(result, gradients, scale)
        if not np.isfinite(numpy(result.tensors["loss"])):
            break  # no scale helps
    return _unscaled(*run_at(1.0), 1.0)


def _is_finite(gradients: dict[str, Array]) -> bool:
    return all(bool(np.isfinite(gradient).all()) for gradient in gradients.values())


def _unscaled(result: Result, gradients: dict[str, Array], scale: float) -> Result:
    wide: dict[str, Tensor] = {
        key: array.astype(np.promote_types(array.dtype, np.float32)) / np.float32(scale)
        for key, array in gradients.items()
    }
    return Result(result.tensors, wide)


def underflow(gradient: Array, scale: float) -> float:
    """Share of a gradient's elements that are not 0 and round to 0 in float16 at the scale of training."""
    size = np.abs(gradient) * scale
    return float(np.mean((size > 0) & (size <= _ROUNDS_TO_ZERO)))
