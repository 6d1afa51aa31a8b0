"""Which recurrent layers can be looked into, and on which way: in the loop, or by their own kernel."""

from __future__ import annotations

import inspect
from typing import Any

from .cell import standard_kind
from .dialect import Dialect
from .layers import halves
from .library import is_a, is_own, is_recurrent

_CLOSED = ("lstm", "gru", "simple_rnn")


def why_not(keras: Dialect, layer: Any) -> str:
    """Return the reason for which a layer cannot be looked into, empty if it can."""
    if not is_recurrent(layer):
        return "only recurrent layers have an inside"
    return next(filter(None, (_why_not(keras, half) for half in halves(layer))), "")


def _why_not(keras: Dialect, layer: Any) -> str:
    name, cell = type(layer).__name__, getattr(layer, "cell", None)
    if is_a(layer, "_CuDNNRNN"):
        return f"{name} is one kernel of cuDNN; keras.layers.LSTM and GRU load its weights"
    for method in ("call", "inner_loop"):
        function = getattr(type(layer), method, None)
        if function is not None and not is_own(inspect.unwrap(function), layer):
            return (
                f"{name} overrides {method}, so that its loop over time is not known; move what it does into "
                "the cell or into a layer beside it"
            )
    if hasattr(cell, "_is_tf_rnn_cell"):
        return f"{type(cell).__name__} is a cell of tf.compat.v1.nn, not of Keras"
    return "it is given constants beside its states" if getattr(layer, "_num_constants", 0) else ""


def is_closed(keras: Dialect, layer: Any, training: bool, activations: frozenset[str]) -> bool:
    """Whether the layer keeps its kernel and `cells` solves it: quicker where the loop is Python's."""
    cell = layer.cell
    if training and any(getattr(cell, name, None) for name in ("dropout", "recurrent_dropout")):
        return False
    if keras.backend_name() != "torch" or standard_kind(cell) not in _CLOSED:
        return False
    functions = [getattr(cell, name, None) for name in ("activation", "recurrent_activation")]
    return all(keras.activation_name(cell, each) in activations for each in functions if each is not None)
