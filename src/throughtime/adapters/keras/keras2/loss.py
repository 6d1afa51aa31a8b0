"""The one number that is differentiated, and what the model says about how it reduces samples.

What Keras' training would minimise, evaluated without its metrics: they hold variables of their own.
"""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import tensorflow as tf

from throughtime._errors import LossError, ThroughTimeError
from throughtime.adapters.attributes import replaced
from throughtime.adapters.keras.layers import every_layer
from throughtime.adapters.keras.library import (
    belongs_to_a_graph,
    internal,
    is_a,
    overrides,
    package_of_object,
)
from throughtime.adapters.keras.reasons import of_no_loss
from throughtime.adapters.keras.reductions import Labels, Reductions

from .arrays import shape_of
from .internals import compiled_loss


class _Silent:
    """Stands in for a metric that nobody reads."""

    def update_state(self, *args: Any, **kwargs: Any) -> None:
        """Take nothing in."""

    def reset_state(self) -> None:
        """Forget nothing."""


class Loss:
    """The loss of one model, compiled or passed.

    Parameters
    ----------
    model : the model
    passed : callable (y_true, y_pred), keras.losses.Loss, str or None
    """

    def __init__(self, model: Any, passed: Any = None) -> None:
        self.model = model
        self.passed = passed
        self._container: Any = None

    @property
    def identity(self) -> Any:
        """What a trace is made for: the loss passed, else what the last `compile` made of the model's own."""
        if self.passed is not None:
            return self.passed
        is_graph = belongs_to_a_graph(self.model)
        return getattr(self.model, "loss_functions", None) if is_graph else compiled_loss(self.model)

    def check(self) -> None:
        """Refuse a model without any loss, and a loss that is none.

        Raises
        ------
        LossError
        """
        passed = self.passed
        if passed is None and not (_is_compiled(self.model) or overrides(self.model, "compute_loss")):
            raise LossError(of_no_loss(self.model, has_own_step=overrides(self.model, "train_step")))
        if not (passed is None or callable(passed) or isinstance(passed, str)):
            raise LossError(
                f"loss= takes a function (y_true, y_pred), a Keras loss or a name, not "
                f"{type(passed).__name__}."
            )

    def may_do_without_labels(self) -> bool:
        """Whether all of the loss may come from the model itself: from `add_loss` or its `compute_loss`."""
        return self.passed is None and _is_compiled(self.model) and _user_losses(self.model) is None

    def has_data_loss(self) -> bool:
        """Whether some of the loss compares predictions with labels; else all of it is added by layers."""
        given = _user_losses(self.model) if self.passed is None else self.passed
        return given is not None or overrides(self.model, "compute_loss")

    def total(self, labels: Labels, predictions: Any) -> Any:
        """Evaluate the scalar loss of the batch as `fit` would, before any loss scaling.

        Added losses and regularisers are part of it, whether the loss was compiled or passed.
        """
        parts = [self._guarded(labels, predictions)] if self.has_data_loss() else []
        if not overrides(self.model, "compute_loss") or self.passed is not None:
            parts += added_losses(self.model)
        if not parts:
            raise LossError(of_no_loss(self.model, has_own_step=overrides(self.model, "train_step")))
        dtype = "float64" if any(part.dtype == tf.float64 for part in parts) else "float32"
        return tf.add_n([tf.cast(part, dtype) for part in parts])

    def of_data(self, labels: Labels, predictions: Any) -> Any:
        """Evaluate the loss without what the model adds to it."""
        value = self._guarded(labels, predictions)
        if overrides(self.model, "compute_loss") and self.passed is None:
            value -= sum(tf.cast(part, value.dtype) for part in added_losses(self.model))
        return value

    def adds_losses(self) -> bool:
        """Whether layers add to the loss by themselves, beside the regularisers of weights."""
        regularised = sum(len(layer._callable_losses) for layer in every_layer(self.model))
        return len(added_losses(self.model)) > regularised

    def reductions(self) -> Reductions:
        """Read how each part of the loss is reduced over samples; known after it has been evaluated."""
        if self.passed is None and overrides(self.model, "compute_loss"):
            return Reductions(None, is_certain=False)
        losses = [self.passed] if self._container is None else self._container._losses
        losses = [loss for loss in losses if loss is not None]
        if not losses or not all(hasattr(loss, "reduction") for loss in losses):
            return Reductions(None, is_certain=False)
        declared = tuple(str(loss.reduction) for loss in losses)
        return Reductions(declared, all(_is_of_keras(loss) for loss in losses))

    def _guarded(self, labels: Labels, predictions: Any) -> Any:
        try:
            value = self._of_data(labels, predictions)
            return value if value.shape.rank == 0 else tf.reduce_mean(value)
        except ThroughTimeError:
            raise
        except Exception as error:
            raise LossError(
                f"The loss could not be evaluated: {type(error).__name__}: {error}\n"
                f"Predictions have shape {_shapes(predictions)}, labels {_shapes(labels.y)}, sample weights "
                f"{_shapes(labels.sample_weight)}. Give labels of the shape that model.fit takes."
            ) from error

    def _of_data(self, labels: Labels, predictions: Any) -> Any:
        if self.passed is not None and not isinstance(self.passed, str):
            return _passed(self.passed, labels, predictions)
        self._container = _without_metrics(self.model, self.passed)
        _check_shapes(self._container, labels.y, predictions)
        if self.passed is None and overrides(self.model, "compute_loss"):
            with _standing_for(self.model, self._container):
                return self.model.compute_loss(labels.x, labels.y, predictions, labels.sample_weight)
        value = self._container(labels.y, predictions, labels.sample_weight)
        if value is None:
            raise LossError(
                "The loss compares nothing: the model was compiled with loss=None for all outputs."
            )
        return value


def added_losses(model: Any) -> list[Any]:
    """Return what layers and regularisers have added to the loss in this pass."""
    here = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    return [loss for loss in model.losses if not _is_foreign(loss, here)]


def _is_foreign(tensor: Any, graph: Any) -> bool:
    """Whether a tensor was left by another pass, in another graph; values from outside functions are not."""
    own = getattr(tensor, "graph", None) if not hasattr(tensor, "numpy") else None
    return graph is not None and own is not None and own is not graph


def _standing_for(model: Any, container: Any) -> AbstractContextManager[None]:
    return nullcontext() if compiled_loss(model) is None else replaced(model, "compiled_loss", container)


def _user_losses(model: Any) -> Any:
    """Return what `compile` was given as losses."""
    if belongs_to_a_graph(model):
        return getattr(model, "loss", None) or None
    return getattr(compiled_loss(model), "_user_losses", None)


def _is_compiled(model: Any) -> bool:
    return bool(getattr(model, "_is_compiled", False) or getattr(model, "optimizer", None) is not None)


def _without_metrics(model: Any, name: str | None) -> Any:
    """Make a container of losses, as `compile` makes one, that keeps no metrics."""
    compiled = compiled_loss(model)
    if name is None and compiled is not None:
        container = copy.copy(compiled)
        if container._built:
            container._per_output_metrics = [None] * len(container._losses)
    else:
        kind = internal(model, "engine.compile_utils").LossesContainer
        container = kind.__new__(kind)
        losses, scales = (name, None) if name is not None else (model.loss, model.loss_weights)
        _as_constructed(container, losses, scales, getattr(model, "output_names", None))
    container._create_metrics = lambda: _no_metrics(container)
    container._total_loss_mean = container._loss_metric = _Silent()
    return container


def _as_constructed(container: Any, losses: Any, weights: Any, names: Any) -> None:
    """Set what a container's constructor sets, which would make a metric."""
    container._output_names = names
    container._user_losses = container._losses = losses
    container._user_loss_weights = container._loss_weights = weights
    container._per_output_metrics = None
    container._mesh = None
    container._built = False


def _no_metrics(container: Any) -> None:
    container._per_output_metrics = [None] * len(container._losses)


def _is_of_keras(loss: Any) -> bool:
    # A user's function is wrapped into a class of Keras.
    package = f"{package_of_object(loss)}."
    origins = [type(loss), getattr(loss, "fn", type(loss))]
    return all(f"{getattr(origin, '__module__', '')}.".startswith(package) for origin in origins)


def _check_shapes(container: Any, y: Any, predictions: Any) -> None:
    """Refuse labels that Keras would silently broadcast against the predictions."""
    pairs = list(zip(tf.nest.flatten(y), tf.nest.flatten(predictions), strict=False))
    user_losses = tf.nest.flatten(container._user_losses)
    if len(pairs) != 1 or not all(isinstance(loss, str) or _is_loss(loss) for loss in user_losses):
        return
    if not all(hasattr(tensor, "shape") and tensor.shape.rank is not None for tensor in pairs[0]):
        return
    label, prediction = (shape_of(tensor) for tensor in pairs[0])
    if _fit(label, prediction):
        return
    raise LossError(
        f"Labels of shape {label} do not fit predictions of shape {prediction}; Keras would broadcast one "
        f"against the other. Give labels of shape {prediction}, or {prediction[:-1]} for class indices."
    )


def _fit(label: tuple[Any, ...], prediction: tuple[Any, ...]) -> bool:
    """Whether shapes agree, or labels are class indices; unknown sizes agree with any."""
    allowed = [prediction, prediction[:-1], (*prediction[:-1], 1)]
    if prediction and prediction[-1] == 1:
        allowed.append(prediction[:-1])
    return any(
        len(shape) == len(label) and all(None in (a, b) or a == b for a, b in zip(shape, label, strict=True))
        for shape in allowed
    )


def _is_loss(loss: Any) -> bool:
    return is_a(loss, "Loss") and _is_of_keras(loss)


def _passed(loss: Any, labels: Labels, predictions: Any) -> Any:
    weight = labels.sample_weight
    if is_a(loss, "Loss"):
        return loss(labels.y, predictions, weight)
    value = tf.convert_to_tensor(loss(labels.y, predictions))
    if weight is None:
        return value
    if value.shape.rank == 0:
        raise LossError(
            "sample_weight needs a loss that returns one value per sample; this loss= returned a scalar."
        )
    weight = tf.cast(weight, value.dtype)
    missing = value.shape.rank - weight.shape.rank
    return value * tf.reshape(weight, tf.concat([tf.shape(weight), [1] * missing], 0))


def _shapes(structure: Any) -> str:
    if structure is None:
        return "none"
    return str(tf.nest.map_structure(lambda array: tuple(getattr(array, "shape", ())), structure))
