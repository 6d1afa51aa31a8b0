"""What holds for a whole capture, as attributes of the tree's root: plain strings and numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from throughtime.adapters.records import Attribute

from .alignment import alignment
from .layers import every_layer

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
    attributes: dict[str, Attribute] = {
        **done.keras.of_framework(done.model),
        "training": int(done.request.training),
        "order_of_calls": ", ".join(called),
    }
    if reduced is None:
        attributes["gradients"] = "none: the capture was made without labels"
    else:
        attributes["loss_reduction"] = reduced[1]
    regularised = done.keras.regularised(done.model)
    if regularised:
        attributes["regularised"] = (
            f"{', '.join(regularised)}: regularisers are part of loss and weight gradients, not of what "
            "single steps contribute"
        )
    if done.program.adds_losses:
        attributes["added_losses"] = "losses that layers add are part of the loss, as they are"
    attributes.update(done.keras.of_training(done.model, with_loss=reduced is not None))
    if absent:
        attributes["not_called"] = ", ".join(absent)
    attributes["time"] = alignment(every_layer(done.model))
    return attributes
