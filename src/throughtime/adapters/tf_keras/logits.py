"""Marks the logits behind a layer's softmax or sigmoid, which a loss may read in place of its output.

Keras leaves them on the output for its crossentropies: then the output has no gradient, and the logits do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from throughtime.adapters.attributes import replaced

from .internals import forget_keras_logits, keras_logits, set_keras_logits
from .library import is_a, is_own, is_recurrent

if TYPE_CHECKING:
    from .tap import Call, Recorder

_WITH_LOGITS = ("softmax", "sigmoid")


def watched(recorder: Recorder, layer: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a layer's call so that what goes into its softmax or sigmoid is marked, if it ends in one."""
    if is_a(layer, "Softmax"):
        return _watched_whole(recorder, original)
    inner = layer.layer if is_a(layer, "TimeDistributed") else layer
    activation = getattr(inner, "activation", None)
    has_logits = getattr(activation, "__name__", "") in _WITH_LOGITS and is_own(activation, inner)
    if activation is None or is_recurrent(inner) or not has_logits:
        return original

    def call(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        record, activations = recorder.current[-1], _Activations(recorder, activation)
        with replaced(inner, "activation", activations):
            result = original(inputs, *args, **kwargs)
        record.logits = activations.behind(result)
        return result

    return call


def _watched_whole(recorder: Recorder, original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the call of a layer that is a softmax and nothing else: its input are the logits."""

    def call(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        record = recorder.current[-1]
        record.logits = (record.key("logits"),)
        return original(recorder.marked("logits", *record.logits, inputs), *args, **kwargs)

    return call


class _Activations:
    """Stands in for an activation during one call of a layer, and remembers which use gave which output."""

    def __init__(self, recorder: Recorder, function: Callable[..., Any]) -> None:
        self._recorder, self._function = recorder, function
        self._outputs: list[tuple[str, Any]] = []

    def __call__(self, logits: Any, *args: Any, **kwargs: Any) -> Any:
        key = self._recorder.current[-1].key("logits", len(self._outputs))
        output = self._function(self._recorder.marked("logits", key, logits), *args, **kwargs)
        self._outputs.append((key, output))
        return output

    def behind(self, result: Any) -> tuple[str, ...]:
        """Name the logits of a layer's result; none where the activation is not the last step."""
        return tuple(key for key, output in self._outputs if output is result)


def hand_on(recorder: Recorder, record: Call, output: Any, marked: Any) -> None:
    """Let the loss read marked logits of a layer's marked output, where it reads logits at all."""
    logits = keras_logits(output)
    if logits is None or record.logits:
        return
    if recorder.found[record.index].is_recurrent:
        # A cell's sigmoid is a state: the next step reads it, so the loss must read it as well.
        if marked is not output:
            forget_keras_logits(marked)
        return
    record.logits = (record.key("carried_logits"),)
    set_keras_logits(marked, recorder.marked("logits", *record.logits, logits))
