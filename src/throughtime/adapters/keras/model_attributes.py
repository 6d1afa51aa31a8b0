"""What holds for a whole capture of a Keras model: framework, reduction of the loss, alignment of time."""

from __future__ import annotations

from typing import Any

import keras

from throughtime._record import Attribute

from .internals import every_layer
from .settings import returns_reversed

_OTHER_TIME = ("Cropping1D", "Flatten", "Permute", "RepeatVector", "Reshape", "UpSampling1D", "ZeroPadding1D")


def model_attributes(
    model: Any, order_of_calls: list[str], reduced: tuple[float, str] | None, absent: list[str]
) -> dict[str, Attribute]:
    """Tell what a reader of the tree has to know beside the layers.

    Parameters
    ----------
    model : keras.Model
    order_of_calls : list of str
        Paths of the leaves.
    reduced : (float, str) or None
        The factor of the loss's reduction and the words for it; None without labels.
    absent : list of str
        Paths of layers that were not called.
    """
    attributes: dict[str, Attribute] = {
        "framework": "keras",
        "framework_version": keras.__version__,
        "backend": keras.backend.backend(),
        "order_of_calls": ", ".join(order_of_calls),
    }
    if reduced is None:
        attributes["gradients"] = "none: the capture was made without labels"
    else:
        attributes["loss_reduction"] = reduced[1]
    regularised = sorted({v.path for v in model.trainable_variables if v.regularizer is not None})
    if regularised:
        attributes["regularised"] = (
            f"{', '.join(regularised)}: regularisers are part of loss and weight gradients, not of what "
            "single steps contribute"
        )
    if absent:
        attributes["not_called"] = ", ".join(absent)
    attributes["time"] = _alignment(model)
    return attributes


def _alignment(model: Any) -> str:
    """Say which layers upstream break the time axis that the model's input has."""
    breaking = [layer for layer in every_layer(model) if _breaks_time(layer)]
    if not breaking:
        return "each layer's own input, in input order"
    names = ", ".join(f"{layer.name} ({type(layer).__name__})" for layer in breaking)
    return f"each layer's own input, in input order; not the model's input time after {names}"


def _breaks_time(layer: Any) -> bool:
    """Whether step t of the layer's output is not step t of its input."""
    if returns_reversed(layer) or type(layer).__name__ in _OTHER_TIME:
        return True
    if hasattr(layer, "state_size"):  # a convolution inside a recurrent cell is one over space
        return False
    if getattr(layer, "rank", None) != 1 and not hasattr(layer, "pool_size"):
        return False
    shortens = getattr(layer, "padding", "same") == "valid" and getattr(layer, "kernel_size", (1,)) != (1,)
    return shortens or getattr(layer, "strides", (1,)) not in (1, (1,))
