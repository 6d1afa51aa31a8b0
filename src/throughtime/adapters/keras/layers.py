"""Which layers a layer or model of any Keras is made of; `_flatten_layers` is not published by Keras."""

from __future__ import annotations

from typing import Any

from .library import is_a, is_layer

# What Keras and torch merely note down; the mode of a pass is an argument of its call.
_BOOKKEEPING = ("training", "stop_training", "_called", "built", "_is_compiled")


def sublayers(layer: Any) -> list[Any]:
    """Direct sublayers, in the order in which `model.layers` counts them."""
    if is_a(layer, "Model"):
        return list(layer.layers)
    return list(layer._flatten_layers(include_self=False, recursive=False))


def every_layer(model: Any) -> list[Any]:
    """Return the model and all layers and cells inside it; none for what is no layer."""
    if not is_layer(model):
        return []
    return list({id(layer): layer for layer in model._flatten_layers()}.values())


def halves(layer: Any) -> tuple[Any, ...]:
    """Return both layers of a Bidirectional, else the layer itself."""
    if is_a(layer, "Bidirectional"):
        return layer.forward_layer, layer.backward_layer
    return (layer,)


def plain_settings(model: Any) -> tuple[Any, ...]:
    """Every plain setting and activation of every layer: a change of one changes what the model computes."""
    return tuple(
        frozenset(
            (name, id(value) if callable(value) else value)
            for name, value in vars(layer).items()
            if (isinstance(value, (bool, int, float, str)) and name not in _BOOKKEEPING)
            or (name.endswith("activation") and callable(value))
        )
        for layer in every_layer(model)
    )
