"""The one number that is differentiated, and what it does to each sample's share of it.

Keras reduces a loss over samples and whatever else the predictions have; only the mean over samples is
undone later, by the factor found here.
"""

from __future__ import annotations

from typing import Any

import keras

from throughtime._errors import LossError, ThroughTimeError
from throughtime.adapters.keras.reasons import of_no_loss
from throughtime.adapters.keras.reductions import Labels, Reductions

from .internals import compiled_loss, single_losses


def check_loss(model: Any, loss: Any) -> None:
    """Refuse a model without any loss, and a loss that is none.

    Raises
    ------
    LossError
    """
    if loss is None and not (getattr(model, "compiled", False) or overrides(model, "compute_loss")):
        raise LossError(of_no_loss(model, has_own_step=overrides(model, "train_step")))
    if not (loss is None or callable(loss) or isinstance(loss, str)):
        raise LossError(
            f"loss= takes a function (y_true, y_pred), a Keras loss or a name, not {type(loss).__name__}."
        )


def overrides(model: Any, method: str) -> bool:
    """Whether the model's class has its own version of a method of keras.Model."""
    return getattr(type(model), method, None) is not getattr(keras.Model, method, None)


def may_do_without_labels(model: Any, loss: Any) -> bool:
    """Whether all of the loss may come from the model itself: from `add_loss` or its own `compute_loss`."""
    return loss is None and bool(getattr(model, "compiled", False)) and compiled_loss(model) is None


def total(model: Any, loss: Any, labels: Labels, predictions: Any, training: bool) -> Any:
    """Evaluate the scalar loss of the batch as `fit` would, before any loss scaling.

    Added losses and regularisers are part of it, whether the loss was compiled or passed.
    """
    try:
        if loss is None:
            value = _compiled(model, labels, predictions, training)
            return value if len(value.shape) == 0 else keras.ops.sum(value)
        return sum(_added(model), _passed(loss, labels, predictions))
    except ThroughTimeError:
        raise
    except Exception as error:
        raise LossError(
            f"The loss could not be evaluated: {type(error).__name__}: {error}\n"
            f"Predictions have shape {_shapes(predictions)}, labels {_shapes(labels.y)}, sample weights "
            f"{_shapes(labels.sample_weight)}. Give labels of the shape that model.fit takes."
        ) from error


def _added(model: Any) -> list[Any]:
    """Sum up each loss that layers and regularisers add, as Keras does."""
    return [keras.ops.sum(added) for added in model.losses]


def adds_losses(model: Any) -> bool:
    """Whether layers add to the loss by themselves, beside the regularisers of weights."""
    regularised = [weight for weight in model.trainable_variables if weight.regularizer is not None]
    return len(model.losses) > len(regularised)


def has_data_loss(model: Any, loss: Any) -> bool:
    """Whether some of the loss compares predictions with labels; else all of it is added by layers."""
    return loss is not None or compiled_loss(model) is not None or overrides(model, "compute_loss")


def data_loss(model: Any, loss: Any, labels: Labels, predictions: Any, training: bool) -> Any:
    """Evaluate the loss without what the model adds to it."""
    if loss is not None:
        return _passed(loss, labels, predictions)
    if overrides(model, "compute_loss"):
        return _compiled(model, labels, predictions, training) - sum(_added(model))
    return compiled_loss(model)(labels.y, predictions, labels.sample_weight)


def _compiled(model: Any, labels: Labels, predictions: Any, training: bool) -> Any:
    _check_shapes(model, labels.y, predictions)
    if not (has_data_loss(model, None) or model.losses):
        raise LossError(of_no_loss(model, has_own_step=overrides(model, "train_step")))
    # Models written before Keras 3.3 override compute_loss without its training argument.
    compute = getattr(model, "_compute_loss", model.compute_loss)
    return compute(
        x=labels.x, y=labels.y, y_pred=predictions, sample_weight=labels.sample_weight, training=training
    )


def _check_shapes(model: Any, y: Any, predictions: Any) -> None:
    """Refuse labels that Keras would silently broadcast against the predictions."""
    pairs = list(zip(keras.tree.flatten(y), keras.tree.flatten(predictions), strict=False))
    user_losses = keras.tree.flatten(getattr(compiled_loss(model), "_user_loss", None))
    if len(pairs) != 1 or not all(_compares_elements(loss) for loss in user_losses):
        return
    label, prediction = (tuple(tensor.shape) for tensor in pairs[0])
    if None in (*label, *prediction):  # a layer that works on text leaves shapes open on TensorFlow
        return
    if label in (prediction, prediction[:-1], (*prediction[:-1], 1)) or prediction == (*label, 1):
        return
    raise LossError(
        f"Labels of shape {label} do not fit predictions of shape {prediction}; Keras would broadcast one "
        f"against the other. Give labels of shape {prediction}, or {prediction[:-1]} for class indices."
    )


def _compares_elements(loss: Any) -> bool:
    """Whether a loss is one of Keras' that take labels of the predictions' shape, or class indices."""
    if isinstance(loss, str):
        return loss.lower() != "ctc"
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
    missing = len(value.shape) - len(weight.shape)
    shape = (*weight.shape, *(1,) * missing) if missing >= 0 else value.shape
    return keras.ops.mean(value * keras.ops.reshape(weight, shape))


def reductions(model: Any, loss: Any) -> Reductions:
    """Read how each part of the loss is reduced over samples; known after the compiled loss ran once."""
    if loss is None:
        if overrides(model, "compute_loss") or not single_losses(model):
            return Reductions(None, is_certain=False)
        losses = single_losses(model)
    else:
        losses = [keras.losses.get(loss) if isinstance(loss, str) else loss]
    if not all(isinstance(single, keras.losses.Loss) for single in losses):
        return Reductions(None, is_certain=False)
    declared = tuple(str(single.reduction or "none") for single in losses)
    return Reductions(declared, all(map(_is_of_keras, losses)))


def _is_of_keras(loss: Any) -> bool:
    # A user's function is wrapped into a class of Keras.
    origins = [type(loss), getattr(loss, "fn", type(loss))]
    return all(getattr(origin, "__module__", "").startswith("keras.") for origin in origins)


def _shapes(structure: Any) -> str:
    if structure is None:
        return "none"
    return str(keras.tree.map_structure(lambda array: tuple(getattr(array, "shape", ())), structure))
