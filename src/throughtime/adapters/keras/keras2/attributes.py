"""What holds for a whole capture, as attributes of the tree's root: plain strings and numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from throughtime._record import Attribute
from throughtime.adapters.keras.alignment import alignment

from .internals import every_layer
from .library import belongs_to_a_graph, package_of_object, version
from .loss import overrides

if TYPE_CHECKING:
    from .collect import Pass


def of_capture(
    done: Pass, reduced: tuple[float, str] | None, *, called: list[str], absent: list[str]
) -> dict[str, Attribute]:
    """Gather what holds for all layers: where this ran, how the loss was reduced, what was left out.

    Parameters
    ----------
    called, absent : list of str
        Paths of the layers asked for, in the order of their calls, and of those that were not called.
    """
    model, program = done.model, done.program
    attributes: dict[str, Attribute] = {
        **of_framework(model),
        "training": int(program.training),
        "order_of_calls": ", ".join(called),
    }
    if reduced is None:
        attributes["gradients"] = "none: the capture was made without labels"
    else:
        attributes["loss_reduction"] = reduced[1]
    regularised = [layer.name for layer in every_layer(model) if layer._callable_losses]
    if regularised:
        attributes["regularised"] = (
            f"{', '.join(regularised)}: regularisers are part of loss and weight gradients, not of what "
            "single steps contribute"
        )
    attributes.update(_of_training(model, program.adds_losses, with_loss=reduced is not None))
    if absent:
        attributes["not_called"] = ", ".join(absent)
    attributes["time"] = alignment(every_layer(model))
    return attributes


def of_framework(model: Any) -> dict[str, Attribute]:
    """Say which Keras 2 a model is of, and how it runs."""
    return {
        "framework": package_of_object(model),
        "framework_version": version(model),
        "backend": "tensorflow",
        "backend_version": str(tf.__version__),
        "mode": "graph" if belongs_to_a_graph(model) else "eager",
    }


def _of_training(model: Any, adds_losses: bool, *, with_loss: bool) -> dict[str, Attribute]:
    """Say in what the pass differs from a training step."""
    attributes: dict[str, Attribute] = {}
    if adds_losses:
        attributes["added_losses"] = "losses that layers add are part of the loss, as they are"
    if with_loss and overrides(model, "train_step"):
        attributes["train_step"] = "the model's own train_step was not run: the loss is that of compute_loss"
    if getattr(model, "_jit_compile", False):
        attributes["jit_compile"] = "the pass ran without XLA, whose results differ in the last digits"
    return attributes
