"""The one number that is differentiated, and what it does to each sample's share of it.

Keras reduces a loss over samples and whatever else the predictions have; only the mean over samples is
undone later, by the factor found here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from throughtime._errors import LossError, ThroughTimeError
from throughtime._record import MEAN, ONE_SAMPLE, SUM

from .internals import compiled_loss, single_losses

_MEANS = ("sum_over_batch_size", "mean")


@dataclass(frozen=True)
class Labels:
    """What the loss compares predictions with: structures of arrays, or of the framework's tensors."""

    x: Any
    y: Any
    sample_weight: Any


def check_loss(model: Any, loss: Any) -> None:
    """Refuse a model without any loss, and a loss that is none.

    Raises
    ------
    LossError
    """
    if loss is None and compiled_loss(model) is None and not _overrides_compute_loss(model):
        raise LossError(
            "The model has no loss: model.compile(loss=...) was not called. Compile it, or pass "
            "loss=, a function (y_true, y_pred) that returns a scalar or one value per sample."
        )
    if not (loss is None or callable(loss) or isinstance(loss, str)):
        raise LossError(
            f"loss= takes a function (y_true, y_pred), a Keras loss or a name, not {type(loss).__name__}."
        )


def _overrides_compute_loss(model: Any) -> bool:
    return getattr(type(model), "compute_loss", None) is not getattr(keras.Model, "compute_loss", None)


def total(model: Any, loss: Any, labels: Labels, predictions: Any, training: bool) -> Any:
    """Evaluate the scalar loss of the batch as `fit` would, before any loss scaling.

    Added losses and regularisers are part of it, whether the loss was compiled or passed.
    """
    try:
        if loss is None:
            value = _compiled(model, labels, predictions, training)
            return value if len(value.shape) == 0 else keras.ops.sum(value)
        added = [keras.ops.mean(extra) for extra in model.losses]
        value = _passed(loss, labels, predictions)
        return sum(added, value)
    except ThroughTimeError:
        raise
    except Exception as error:
        raise LossError(
            f"The loss could not be evaluated: {type(error).__name__}: {error}\n"
            f"Predictions have shape {_shapes(predictions)}, labels {_shapes(labels.y)}, sample weights "
            f"{_shapes(labels.sample_weight)}. Give labels of the shape that model.fit takes."
        ) from error


def data_loss(model: Any, loss: Any, labels: Labels, predictions: Any, training: bool) -> Any:
    """Evaluate the loss without what the model adds to it."""
    if loss is not None:
        return _passed(loss, labels, predictions)
    return _compiled(model, labels, predictions, training) - sum(map(keras.ops.mean, model.losses))


def _compiled(model: Any, labels: Labels, predictions: Any, training: bool) -> Any:
    _check_shapes(model, labels.y, predictions)
    # Models written before Keras 3.3 override compute_loss without its training argument.
    compute = getattr(model, "_compute_loss", model.compute_loss)
    return compute(
        x=labels.x, y=labels.y, y_pred=predictions, sample_weight=labels.sample_weight, training=training
    )


def _check_shapes(model: Any, y: Any, predictions: Any) -> None:
    """Refuse labels that Keras would silently broadcast against the predictions."""
    pairs = list(zip(keras.tree.flatten(y), keras.tree.flatten(predictions), strict=False))
    user_losses = keras.tree.flatten(getattr(compiled_loss(model), "_user_loss", None))
    if len(pairs) != 1 or not all(_compares_shapes(loss) for loss in user_losses):
        return
    label, prediction = (tuple(tensor.shape) for tensor in pairs[0])
    if label in (prediction, prediction[:-1], (*prediction[:-1], 1)) or prediction == (*label, 1):
        return
    raise LossError(
        f"Labels of shape {label} do not fit predictions of shape {prediction}; Keras would broadcast one "
        f"against the other. Give labels of shape {prediction}, or {prediction[:-1]} for class indices."
    )


def _compares_shapes(loss: Any) -> bool:
    """Whether Keras' loss goes element by element; CTC aligns labels with longer predictions."""
    if isinstance(loss, str):
        return loss.lower() not in ("ctc", "ctc_loss")
    return type(loss).__module__.startswith("keras.") and not isinstance(loss, keras.losses.CTC)


def _passed(loss: Any, labels: Labels, predictions: Any) -> Any:
    weight = labels.sample_weight
    loss = keras.losses.get(loss) if isinstance(loss, str) else loss
    if isinstance(loss, keras.losses.Loss):
        value = loss(labels.y, predictions, weight)
        return value if len(value.shape) == 0 else keras.ops.mean(value)
    value = keras.ops.convert_to_tensor(loss(labels.y, predictions))
    if weight is None:
        return value if len(value.shape) == 0 else keras.ops.mean(value)
    if len(value.shape) == 0:
        raise LossError(
            "sample_weight needs a loss that returns one value per sample; this loss= returned a scalar."
        )
    weight = keras.ops.cast(keras.ops.convert_to_tensor(weight), value.dtype)
    # Weights of samples, or of steps as well.
    missing = (1,) * (len(value.shape) - len(weight.shape))
    return keras.ops.mean(value * keras.ops.reshape(weight, (*weight.shape, *missing)))


def reductions(model: Any, loss: Any) -> tuple[str, ...] | None:
    """How each part of the loss is reduced over samples, None where only trying can tell."""
    if loss is None:
        if _overrides_compute_loss(model) or not single_losses(model):
            return None
        losses = single_losses(model)
    else:
        losses = [keras.losses.get(loss) if isinstance(loss, str) else loss]
    if not all(isinstance(single, keras.losses.Loss) for single in losses):
        return None
    return tuple(str(single.reduction or "none") for single in losses)


def factor(how: tuple[str, ...], sample_weight: Any, size: int) -> tuple[float, str]:
    """Find what the loss multiplies a sample's own gradient by, and say in words how it reduces samples.

    Parameters
    ----------
    how : as `reductions` returns it
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


def _weighted(sample_weight: Any, size: int) -> float:
    if sample_weight is None:
        return 1.0 / size
    weight = np.asarray(keras.ops.convert_to_numpy(keras.tree.flatten(sample_weight)[0]), float)
    return float(1.0 / weight.reshape(size, -1).mean(axis=1).sum())


def tried_factor(
    labels: Labels, predictions: Any, evaluate: Callable[[Labels, Any], float], size: int
) -> tuple[float, str]:
    """Find the factor by trying: the loss of two samples together against that of each alone."""
    if size == 1:
        return 1.0, ONE_SAMPLE

    def loss_of(rows: slice) -> float:
        def part(structure: Any) -> Any:
            return keras.tree.map_structure(lambda t: None if t is None else t[rows], structure)

        few = Labels(part(labels.x), part(labels.y), part(labels.sample_weight))
        return evaluate(few, part(predictions))

    first, second, both = loss_of(slice(0, 1)), loss_of(slice(1, 2)), loss_of(slice(0, 2))
    tolerance = 1e-4 * max(abs(first), abs(second), abs(both), 1e-30)
    if abs(both - (first + second) / 2) <= tolerance:
        return 1.0 / size, MEAN
    if abs(both - (first + second)) <= tolerance:
        return 1.0, SUM
    return 1.0, "couples samples: two together lose neither the mean nor the sum of each, nothing undone"


def _shapes(structure: Any) -> str:
    if structure is None:
        return "none"
    return str(keras.tree.map_structure(lambda array: tuple(getattr(array, "shape", ())), structure))
