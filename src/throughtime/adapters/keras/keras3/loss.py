"""The losses that a Keras 3 model was compiled with, and those that its layers add."""

from __future__ import annotations

from typing import Any

import keras

from throughtime.adapters.keras.reductions import Labels


def is_compiled(model: Any) -> bool:
    """Whether the model was compiled, with a loss or without."""
    return bool(getattr(model, "compiled", False))


def compiled_losses(model: Any) -> Any:
    """Return the object `compile` made of the losses, None when there are none."""
    return getattr(model, "_compile_loss", None)


def given_losses(model: Any) -> list[Any]:
    """List what `compile` was given as losses, empty for nothing."""
    given = getattr(compiled_losses(model), "_user_loss", None)
    return [] if given is None else keras.tree.flatten(given)


def loss_function(passed: Any) -> Any:
    """Return what the name of a loss stands for."""
    return keras.losses.get(passed) if isinstance(passed, str) else passed


def losses_to_call(model: Any, name: str | None) -> Any:
    """Return the model's losses as `compile` made them."""
    del name  # stands for a function
    return compiled_losses(model)


def single_losses(losses: Any) -> list[Any]:
    """List each output's loss, known after `losses` has been called."""
    return [entry.loss for entry in getattr(losses, "_flat_losses", None) or []]


def computed_loss(model: Any, losses: Any, labels: Labels, predictions: Any, training: bool) -> Any:
    """Evaluate the model's own `compute_loss`, which adds what layers add."""
    # Models written before Keras 3.3 override compute_loss without its training argument.
    compute = getattr(model, "_compute_loss", model.compute_loss)
    return compute(
        x=labels.x, y=labels.y, y_pred=predictions, sample_weight=labels.sample_weight, training=training
    )


def added_losses(model: Any) -> list[Any]:
    """Sum up each loss that layers and regularisers add, as Keras does."""
    return [keras.ops.sum(added) for added in model.losses]


def adds_losses(model: Any) -> bool:
    """Whether layers add to the loss by themselves, beside the regularisers of weights."""
    regularised = [weight for weight in model.trainable_variables if weight.regularizer is not None]
    return len(model.losses) > len(regularised)
