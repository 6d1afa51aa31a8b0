"""Marks the logits behind a layer's softmax or sigmoid, which a loss may read in place of its output.

Keras leaves them on the output for its crossentropies: then the output has no gradient, and the logits do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from throughtime.adapters.attributes import replaced
from throughtime.adapters.keras import logits

from . import internals
from .library import is_a, is_own, is_recurrent

if TYPE_CHECKING:
    from .tap import Call, Recorder

_WITH_LOGITS = ("softmax", "sigmoid")


def watched(recorder: Recorder, layer: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a layer's call so that what goes into its softmax or sigmoid is marked, if it ends in one."""
    if is_a(layer, "Softmax"):
        return logits.watched_whole(recorder, original)
    inner = layer.layer if is_a(layer, "TimeDistributed") else layer
    activation = getattr(inner, "activation", None)
    has_logits = getattr(activation, "__name__", "") in _WITH_LOGITS and is_own(activation, inner)
    if activation is None or is_recurrent(inner) or not has_logits:
        return original

    def call(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        record, activations = recorder.current[-1], logits.Activations(recorder, activation)
        with replaced(inner, "activation", activations):
            result = original(inputs, *args, **kwargs)
        record.logits = activations.behind(result)
        return result

    return call


def hand_on(recorder: Recorder, record: Call, output: Any, marked: Any) -> None:
    """Let the loss read marked logits of a layer's marked output, where it reads logits at all."""
    logits.hand_on(internals, recorder, record, output, marked)
