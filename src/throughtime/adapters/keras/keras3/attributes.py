"""What holds for a whole capture, as attributes of the tree's root: plain strings and numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras

from throughtime._record import Attribute
from throughtime.adapters.keras.alignment import alignment

from .internals import every_layer
from .loss import overrides

if TYPE_CHECKING:
    from .collect import Pass


def of_framework() -> dict[str, Attribute]:
    """Name Keras, its version and its backend."""
    return {
        "framework": "keras",
        "framework_version": keras.__version__,
        "backend": keras.backend.backend(),
    }


def of_capture(
    done: Pass, reduced: tuple[float, str] | None, *, called: list[str], absent: list[str]
) -> dict[str, Attribute]:
    """Gather what holds for all layers: where this ran, how the loss was reduced, what was left out.

    Parameters
    ----------
    called, absent : list of str
        Paths of the layers asked for, in the order of their calls, and of those that were not called.
    """
    attributes: dict[str, Attribute] = {
        **of_framework(),
        "training": int(done.program.request.training),
        "order_of_calls": ", ".join(called),
    }
    if reduced is None:
        attributes["gradients"] = "none: the capture was made without labels"
    else:
        attributes["loss_reduction"] = reduced[1]
    regularised = sorted({v.path for v in done.model.trainable_variables if v.regularizer is not None})
    if regularised:
        attributes["regularised"] = (
            f"{', '.join(regularised)}: regularisers are part of loss and weight gradients, not of what "
            "single steps contribute"
        )
    if done.program.adds_losses:
        attributes["added_losses"] = "losses that layers add are part of the loss, as they are"
    if reduced is not None and overrides(done.model, "train_step"):
        attributes["train_step"] = "the model's own train_step was not run: the loss is that of compute_loss"
    if absent:
        attributes["not_called"] = ", ".join(absent)
    attributes["time"] = alignment(every_layer(done.model))
    return attributes
