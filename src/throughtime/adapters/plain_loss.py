"""A loss that is a function (output, y), as torch modules and JAX programs have it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from throughtime._errors import LossError, ThroughTimeError

Shapes = Callable[[Any], str]


def check_loss(loss: Any, model: str, example: str) -> None:
    """Raise LossError for what is no loss; it names the kind of `model` and an `example` of a loss."""
    if loss is None:
        raise LossError(
            f"A {model} does not contain a loss. Pass loss=, a function (output, y) that returns a scalar or "
            f"one value per sample, such as {example}."
        )
    if not callable(loss):
        raise LossError(f"loss= takes a function (output, y) such as {example}, not {type(loss).__name__}.")


def evaluated(loss: Callable[[Any, Any], Any], output: Any, y: Any, shapes: Shapes) -> Any:
    """Call a loss; LossError if it fails, with the shapes of output and labels."""
    try:
        return loss(output, y)
    except ThroughTimeError:
        raise
    except Exception as error:
        raise LossError(
            f"The loss could not be evaluated: {type(error).__name__}: {error}\n"
            f"It is called as loss(output, y). The output has shape {shapes(output)}, y {shapes(y)}."
        ) from error


def weighted(value: Any, weight: Any) -> Any:
    """Multiply the values of a loss by weights of samples, or of samples and steps; LossError if none fit."""
    if value.ndim == 0 or tuple(value.shape[: weight.ndim]) != tuple(weight.shape):
        raise LossError(
            f"sample_weight has shape {tuple(weight.shape)}, and the loss values have shape "
            f"{tuple(value.shape)}: their first axes must agree. Return one loss value for each sample, or "
            'for each sample and step, as torch\'s losses do with reduction="none".'
        )
    return value * weight.reshape(*weight.shape, *(1,) * (value.ndim - weight.ndim))
