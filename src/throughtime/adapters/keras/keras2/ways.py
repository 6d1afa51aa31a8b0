"""Which recurrent layers can be looked into: in the loop."""

from __future__ import annotations

import inspect
from typing import Any

import tensorflow as tf

from throughtime.adapters.keras.library import is_a, is_own, is_recurrent

# The same names in Keras 2 and in Keras 3 for functions with other slopes.
_OTHER_SLOPES = ("hard_sigmoid",)


def halves(layer: Any) -> tuple[Any, ...]:
    """Return both layers of a Bidirectional, else the layer itself."""
    if is_a(layer, "Bidirectional"):
        return layer.forward_layer, layer.backward_layer
    return (layer,)


def why_not(layer: Any, training: bool) -> str:
    """Return the reason for which a layer cannot be looked into, empty if it can."""
    if is_a(layer, "Bidirectional"):
        return why_not(layer.forward_layer, training) or why_not(layer.backward_layer, training)
    if not is_recurrent(layer):
        return "only recurrent layers have an inside"
    reasons = {
        f"{type(layer).__name__} is one kernel of cuDNN; keras.layers.LSTM and GRU load its weights": is_a(
            layer, "_CuDNNRNN"
        ),
        f"{type(layer).__name__} overrides call, so that its loop over time is not known; move what it does "
        "into the cell or into a layer beside it": not is_own(inspect.unwrap(type(layer).call), layer),
        f"{type(getattr(layer, 'cell', None)).__name__} is a cell of tf.compat.v1.nn, not of Keras": hasattr(
            getattr(layer, "cell", None), "_is_tf_rnn_cell"
        ),
        "it is given constants beside its states": bool(getattr(layer, "_num_constants", 0)),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def is_closed(layer: Any, training: bool, activations: frozenset[str]) -> bool:
    """Whether the layer keeps its kernel and `cells` solves it: none does, the loop shows every layer."""
    return False


def activation_name(cell: Any, function: Any) -> str:
    """Name an activation as Keras does; another function of the same name is not that activation."""
    name = str(getattr(function, "__name__", type(function).__name__))
    if name in _OTHER_SLOPES:
        return f"{name} of Keras 2"
    is_known = is_own(inspect.unwrap(function), cell) or function in (tf.tanh, tf.sigmoid)
    return name if is_known else f"{name} of one's own"
