"""Marks the logits behind a layer's softmax or sigmoid, which a loss may read in place of its output.

Keras hands them to its crossentropies beside the output, on the TensorFlow backend: there the output has no
gradient and the logits have it. They are marked on every backend, so that trees can be compared.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras

from throughtime.adapters.attributes import replaced
from throughtime.adapters.keras import logits

from . import internals

if TYPE_CHECKING:
    from .tap import Call, Recorder

_WITH_LOGITS = (keras.activations.softmax, keras.activations.sigmoid)


def watched(recorder: Recorder, layer: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a layer's call so that what goes into its softmax or sigmoid is marked, if it ends in one."""
    if isinstance(layer, keras.layers.Softmax):
        return logits.watched_whole(recorder, original)
    inner = layer.layer if isinstance(layer, keras.layers.TimeDistributed) else layer
    is_cell = isinstance(inner, (keras.layers.RNN, keras.layers.Bidirectional))
    if is_cell or getattr(inner, "activation", None) not in _WITH_LOGITS:
        return original

    @functools.wraps(original)
    def call(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        record, activations = recorder.current[-1], logits.Activations(recorder, inner.activation)
        with replaced(inner, "activation", activations):
            result = original(inputs, *args, **kwargs)
        if inner is layer:
            record.logits = activations.behind(result)
        elif type(inner).__module__.startswith("keras."):
            record.logits = activations.of_steps(inputs.shape[1])
        return result

    return call


def hand_on(recorder: Recorder, record: Call, output: Any, marked: Any) -> None:
    """Let the loss read marked logits of a layer's marked output, where it reads logits at all."""
    logits.hand_on(internals, recorder, record, output, marked)
