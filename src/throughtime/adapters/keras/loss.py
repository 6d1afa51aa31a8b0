"""The one number that is differentiated, and the model's declaration of how it reduces samples.

Keras reduces a loss over samples and whatever else the predictions have; only the mean over samples is
undone later, by the factor that `reductions` finds.
"""

from functools import cached_property
from typing import Any

from throughtime._errors import LossError, ThroughTimeError

from .contracts import Call, Model, Shape, Tensor
from .dialect import Dialect
from .library import compiled_losses, dtype_of, is_a, is_compiled, overrides, package_of_object, shape_of
from .reductions import Labels, Reductions

_NO_LOSS = (
    "The model has no loss: model.compile(loss=...) was not called and no layer adds one. Compile it, or "
    "pass loss=, a function (y_true, y_pred) that returns a scalar or one value per sample."
)
_OWN_STEP = (
    " A capture does not run {name}.train_step: compute the loss in compute_loss(), which fit calls as well."
)


class Loss:
    """The loss of one model, compiled or passed: a function (y_true, y_pred), a loss of Keras or its name."""

    def __init__(self, keras: Dialect, model: Model, passed: object = None) -> None:
        self._keras, self.model, self.passed = keras, model, passed
        self.overrides = passed is None and overrides(model, "compute_loss")
        self._losses: Call | None = None

    @property
    def identity(self) -> object:
        """The key of a trace: the loss passed, else the loss that the last `compile` made."""
        return compiled_losses(self.model) if self.passed is None else self.passed

    @property
    def _given(self) -> list[object]:
        """Losses that `compile` was given, empty for nothing."""
        has_none = getattr(self.model, "_compile_loss", self) is None  # in Keras 3; in Keras 2 `loss` is {}
        given = None if has_none else getattr(self.model, "loss", None)
        return [] if given is None else list(self._keras.tree.flatten(given))

    @cached_property
    def _function(self) -> Any:
        """The loss that was passed, and the function that its name stands for."""
        return self._keras.loss_function(self.passed)

    @property
    def is_own_function(self) -> bool:
        """Whether a plain function was passed, which knows no masks."""
        return callable(self._function) and not is_a(self._function, "Loss")

    def check(self) -> None:
        """Raise LossError for a model without any loss, and for a loss that is none."""
        if self.passed is None and not (is_compiled(self.model) or self.overrides):
            raise self._missing()
        if not (self.passed is None or callable(self.passed) or isinstance(self.passed, str)):
            what = type(self.passed).__name__
            raise LossError(f"loss= takes a function (y_true, y_pred), a Keras loss or a name, not {what}.")

    def _missing(self) -> LossError:
        name = type(self.model).__name__
        own_step = _OWN_STEP.format(name=name) if overrides(self.model, "train_step") else ""
        return LossError(_NO_LOSS + own_step)

    def may_do_without_labels(self) -> bool:
        """Whether all of the loss may come from the model itself: from `add_loss` or its `compute_loss`."""
        is_alone = self.passed is None and is_compiled(self.model)
        return is_alone and not self._given

    def has_data_loss(self) -> bool:
        """Whether some of the loss compares predictions with labels; else all of it is added by layers."""
        return self.passed is not None or self.overrides or bool(self._given)

    def total(self, labels: Labels, predictions: object, training: bool) -> Tensor:
        """Evaluate the scalar loss of the batch as `fit` would, before any loss scaling.

        Added losses and regularisers are part of it, whether the loss was compiled or passed.
        """
        parts = [self._guarded(labels, predictions, training)] if self.has_data_loss() else []
        parts += [] if self.overrides else self._keras.added_losses(self.model)
        if not parts:
            raise self._missing()
        return self._sum(parts)

    def of_data(self, labels: Labels, predictions: object, training: bool) -> Tensor:
        """Evaluate the loss without what the model adds to it."""
        value = self._guarded(labels, predictions, training)
        added = self._keras.added_losses(self.model) if self.overrides else []
        return self._sum([value]) - self._sum(added) if added else value

    def _sum(self, parts: list[Tensor]) -> Tensor:
        is_double = any(dtype_of(part) == "float64" for part in parts)
        dtype = "float64" if is_double else "float32"
        return sum(self._keras.ops.cast(part, dtype) for part in parts)

    def reductions(self) -> Reductions:
        """Read how each part of the loss is reduced over samples; known after it has been evaluated."""
        known = [self._function] if self._losses is None else self._keras.single_losses(self._losses)
        losses: list[Any] = [loss for loss in known if loss is not None and not self.overrides]
        if not losses or not all(hasattr(loss, "reduction") for loss in losses):
            return Reductions(None, is_certain=False)
        declared = tuple(str(loss.reduction or "none") for loss in losses)
        return Reductions(declared, all(map(is_of_keras, losses)))

    def _guarded(self, labels: Labels, predictions: object, training: bool) -> Tensor:
        try:
            value, ops = self._of_data(labels, predictions, training), self._keras.ops
            if len(value.shape) == 0:
                return value
            # The gradient of several numbers, as Keras takes it, is that of their sum.
            return ops.sum(value) if self.passed is None else ops.mean(value)
        except ThroughTimeError:
            raise
        except Exception as error:
            raise LossError(
                f"The loss could not be evaluated: {type(error).__name__}: {error}\n"
                f"Predictions have shape {self._shapes(predictions)}, labels {self._shapes(labels.y)}, "
                f"sample weights {self._shapes(labels.sample_weight)}. Give labels of the shape that "
                "model.fit takes."
            ) from error

    def _of_data(self, labels: Labels, predictions: object, training: bool) -> Tensor:
        if self.passed is None or isinstance(self.passed, str):
            self._check_shapes(labels.y, predictions)
        if callable(self._function):
            return self._of_function(labels, predictions)
        name = self.passed if isinstance(self.passed, str) else None
        self._losses = self._keras.losses_to_call(self.model, name)
        if self.overrides:
            return self._keras.computed_loss(self.model, self._losses, labels, predictions, training)
        value = self._losses(labels.y, predictions, labels.sample_weight)
        if value is None:
            raise LossError(
                "The model was compiled with loss=None for all outputs. Compile it with a loss or pass loss=."
            )
        return value

    def _of_function(self, labels: Labels, predictions: object) -> Tensor:
        ops, weight = self._keras.ops, labels.sample_weight
        if not self.is_own_function:
            return self._function(labels.y, predictions, weight)
        value = ops.convert_to_tensor(self._function(labels.y, predictions))
        if weight is None:
            return value
        rank = len(value.shape)
        if rank == 0:
            raise LossError(
                "sample_weight needs a loss that returns one value per sample; this loss= returned a scalar."
            )
        weight = ops.cast(ops.convert_to_tensor(weight), value.dtype)
        missing = rank - len(weight.shape)
        shape = (*ops.shape(weight), *(1,) * missing) if missing >= 0 else ops.shape(value)
        return value * ops.reshape(weight, shape)

    def _check_shapes(self, y: object, predictions: object) -> None:
        """Refuse labels that Keras would silently broadcast against the predictions."""
        flatten = self._keras.tree.flatten
        pairs = list(zip(flatten(y), flatten(predictions), strict=False))
        given = self._given if self.passed is None else [self.passed]
        if len(pairs) != 1 or not given or not all(map(_compares_elements, given)):
            return
        if any(getattr(tensor.shape, "rank", 0) is None for tensor in pairs[0]):
            return
        label, prediction = (shape_of(tensor) for tensor in pairs[0])
        if not _fit(label, prediction):
            raise LossError(
                f"Labels of shape {label} do not fit predictions of shape {prediction}; Keras would "
                f"broadcast one against the other. Pass labels of shape {prediction}, or {prediction[:-1]} "
                "for class indices."
            )

    def _shapes(self, structure: object) -> str:
        if structure is None:
            return "none"
        shapes = self._keras.tree.map_structure(lambda array: tuple(getattr(array, "shape", ())), structure)
        return str(shapes)


def _fit(label: Shape, prediction: Shape) -> bool:
    """Whether shapes agree, or labels are class indices; unknown sizes agree with any."""
    allowed = [prediction, prediction[:-1], (*prediction[:-1], 1)]
    return any(
        len(shape) == len(label) and all(None in (a, b) or a == b for a, b in zip(shape, label, strict=True))
        for shape in allowed
    )


def _compares_elements(loss: object) -> bool:
    """Whether a loss is one of Keras' that take labels of the predictions' shape, or class indices."""
    if isinstance(loss, str):
        return loss.lower() != "ctc"
    return is_a(loss, "Loss") and is_of_keras(loss) and not is_a(loss, "CTC")


def is_of_keras(loss: object) -> bool:
    """Whether a loss is Keras' own; a user's function is wrapped into a class of Keras."""
    package = f"{package_of_object(loss)}."
    origins = [type(loss), getattr(loss, "fn", type(loss))]
    return all(f"{getattr(origin, '__module__', '')}.".startswith(package) for origin in origins)
