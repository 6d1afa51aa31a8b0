"""Whether a layer's steps are those of the model's input: strides, pooling and reversed outputs break that.

Shared by the adapters of every Keras.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_OTHER_TIME = ("Cropping1D", "Flatten", "Permute", "RepeatVector", "Reshape", "UpSampling1D", "ZeroPadding1D")


def alignment(layers: Iterable[Any]) -> str:
    """Say which of a model's layers break the time axis that its input has."""
    breaking = [layer for layer in layers if _breaks_time(layer)]
    if not breaking:
        return "each layer's own input, in input order"
    names = ", ".join(f"{layer.name} ({type(layer).__name__})" for layer in breaking)
    return f"each layer's own input, in input order; not the model's input time after {names}"


def returns_reversed(layer: Any) -> bool:
    """Whether the layer's output sequence runs against its input's time."""
    return bool(getattr(layer, "go_backwards", False) and getattr(layer, "return_sequences", False))


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
