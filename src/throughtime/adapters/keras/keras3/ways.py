"""Which recurrent layers can be looked into, and on which way: in the loop, or by their own kernel."""

from __future__ import annotations

from typing import Any

import keras

from throughtime.adapters.keras.cell import standard_kind

_CLOSED = ("lstm", "gru", "simple_rnn")


def halves(layer: Any) -> tuple[Any, ...]:
    """Return both layers of a Bidirectional, else the layer itself."""
    if isinstance(layer, keras.layers.Bidirectional):
        return layer.forward_layer, layer.backward_layer
    return (layer,)


def why_not(layer: Any, training: bool) -> str:
    """Return the reason for which a layer cannot be looked into, empty if it can."""
    if isinstance(layer, keras.layers.Bidirectional):
        return why_not(layer.forward_layer, training) or why_not(layer.backward_layer, training)
    if not isinstance(layer, keras.layers.RNN):
        return "only recurrent layers have an inside"
    for method in ("call", "inner_loop"):
        if not getattr(type(layer), method).__module__.startswith("keras."):
            return (
                f"{type(layer).__name__} overrides {method}, so that its loop over time is not known; move "
                "what it does into the cell or into a layer beside it"
            )
    return ""


def is_closed(layer: Any, training: bool, activations: frozenset[str]) -> bool:
    """Whether the layer keeps its kernel and `cells` solves it: quicker where the loop is Python's."""
    cell = layer.cell
    if training and any(getattr(cell, name, None) for name in ("dropout", "recurrent_dropout")):
        return False
    if keras.backend.backend() != "torch":
        return False
    if standard_kind(cell) not in _CLOSED:
        return False
    functions = [getattr(cell, name, None) for name in ("activation", "recurrent_activation")]
    return all(activation_name(cell, each) in activations for each in functions if each is not None)


def activation_name(cell: Any, function: Any) -> str:
    """Name an activation as Keras does; another function of the same name is not that activation."""
    name = getattr(function, "__name__", type(function).__name__)
    known = getattr(keras.activations, name, None)
    return str(name) if function is known else f"{name} of one's own"
