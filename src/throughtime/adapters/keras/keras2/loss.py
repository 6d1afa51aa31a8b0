"""The losses that a Keras 2 model was compiled with, and those that its layers add.

They are evaluated as Keras' training would, without its metrics: they hold variables of their own.
"""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import tensorflow as tf

from throughtime.adapters.attributes import replaced
from throughtime.adapters.keras.library import (
    belongs_to_a_graph,
    internal,
)
from throughtime.adapters.keras.reductions import Labels

AVERAGES_OVER_VALID_STEPS = False


class _Silent:
    """Stands in for a metric that nobody reads."""

    def update_state(self, *args: Any, **kwargs: Any) -> None:
        """Take nothing in."""

    def reset_state(self) -> None:
        """Forget nothing."""


def compiled_losses(model: Any) -> Any:
    """Return what the last `compile` made of the model's losses."""
    return getattr(model, "loss_functions", None) if belongs_to_a_graph(model) else compiled_loss(model)


def given_losses(model: Any) -> list[Any]:
    """List what `compile` was given as losses, empty for nothing."""
    is_graph = belongs_to_a_graph(model)
    given = getattr(model, "loss", None) if is_graph else getattr(compiled_loss(model), "_user_losses", None)
    return [] if given is None or (is_graph and not given) else list(tf.nest.flatten(given))


def loss_function(passed: Any) -> Any:
    """Return what was passed: the name of a loss stands for `losses_to_call`, which reads masks."""
    return passed


def single_losses(losses: Any) -> list[Any]:
    """List each output's loss, known after `losses` has been called."""
    return list(losses._losses)


def computed_loss(model: Any, losses: Any, labels: Labels, predictions: Any, training: bool) -> Any:
    """Evaluate the model's own `compute_loss`, which adds what layers add."""
    is_kept = compiled_loss(model) is not None
    with replaced(model, "compiled_loss", losses) if is_kept else nullcontext():
        return model.compute_loss(labels.x, labels.y, predictions, labels.sample_weight)


def added_losses(model: Any) -> list[Any]:
    """List what layers and regularisers have added to the loss in this pass."""
    here = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    return [loss for loss in model.losses if not _is_foreign(loss, here)]


def _is_foreign(tensor: Any, graph: Any) -> bool:
    """Whether a tensor was left by another pass, in another graph; values from outside functions are not."""
    own = getattr(tensor, "graph", None) if not hasattr(tensor, "numpy") else None
    if graph is None or own is None:
        return False
    while graph is not None and graph is not own:  # a loop's graph may use what stands around it
        graph = getattr(graph, "outer_graph", None)
    return graph is None


def losses_to_call(model: Any, name: str | None) -> Any:
    """Make a container of losses, as `compile` makes one, that keeps no metrics."""
    compiled = compiled_loss(model)
    if name is None and compiled is not None:
        container = copy.copy(compiled)
    else:
        kind = internal(model, "engine.compile_utils").LossesContainer
        container = kind.__new__(kind)
        losses, scales = (name, None) if name is not None else (model.loss, model.loss_weights)
        # What its constructor sets, which would make a metric.
        container._output_names = getattr(model, "output_names", None)
        container._user_losses = container._losses = losses
        container._user_loss_weights = container._loss_weights = scales
        container._mesh, container._built = None, False

    def create_no_metrics() -> None:
        container._per_output_metrics = [None] * len(container._losses)

    container._per_output_metrics = None
    if container._built:
        create_no_metrics()
    container._create_metrics = create_no_metrics
    container._total_loss_mean = container._loss_metric = _Silent()
    return container


def compiled_loss(model: Any) -> Any:
    """Return the object `compile` made of the losses, None when there is none."""
    return getattr(model, "compiled_loss", None)
