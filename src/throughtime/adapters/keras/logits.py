"""Marks the logits behind a layer's softmax or sigmoid, which a loss may read in place of its output.

Keras hands them to its crossentropies beside the output, on TensorFlow: there the output has no gradient and
the logits have it. They are marked on every backend, so that trees can be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from throughtime.adapters.attributes import replaced

from .library import is_a, is_own, is_recurrent, package_of
from .recorder import CARRIED, Recorder, SeenCall
from .tensors import shape_of

_WITH_LOGITS = ("softmax", "sigmoid")
_LOGITS = CARRIED[1]


def watched(recorder: Recorder, layer: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a layer's call so that what goes into its softmax or sigmoid is marked, if it ends in one."""
    inner = layer.layer if is_a(layer, "TimeDistributed") else layer
    activation: Any = getattr(inner, "activation", None)
    has_logits = getattr(activation, "__name__", "") in _WITH_LOGITS and is_own(activation, inner)
    is_softmax = is_a(layer, "Softmax")
    if not is_softmax and (is_recurrent(inner) or not has_logits):
        return original

    def call(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        record = recorder.current[-1]
        if is_softmax:  # its input are the logits
            record.logits = (record.key("logits"),)
            return original(recorder.marked("logits", *record.logits, inputs), *args, **kwargs)
        activations = _Activations(recorder, activation)
        with replaced(inner, "activation", activations):
            result = original(inputs, *args, **kwargs)
        if inner is layer:
            record.logits = activations.behind(result)
        elif package_of(type(inner)):
            record.logits = activations.of_steps(shape_of(inputs)[1])
        return result

    return call


class _Activations:
    """Stands in for an activation during one call of a layer, and remembers which use gave which output."""

    def __init__(self, recorder: Recorder, function: Callable[..., Any]) -> None:
        self._recorder, self._function = recorder, function
        self._outputs: list[tuple[str, Any]] = []

    def __call__(self, logits: Any, *args: Any, **kwargs: Any) -> Any:
        """Apply the activation to marked logits."""
        key = self._recorder.current[-1].key("logits", len(self._outputs))
        output = self._function(self._recorder.marked("logits", key, logits), *args, **kwargs)
        self._outputs.append((key, output))
        return output

    def behind(self, result: Any) -> tuple[str, ...]:
        """Name the logits of a layer's result; none where the activation is not the last step."""
        return tuple(key for key, output in self._outputs if output is result)

    def of_steps(self, count: int | None) -> tuple[str, ...]:
        """Name the logits of each step of a TimeDistributed; none where it does not run step by step."""
        keys = tuple(key for key, _ in self._outputs)
        return keys if len(keys) == count else ()


def hand_on(recorder: Recorder, record: SeenCall, output: Any, marked: Any) -> None:
    """Let the loss read marked logits of a layer's marked output, where it reads logits at all."""
    keras = recorder.keras
    logits = keras.beside(output, _LOGITS)
    if logits is None or record.logits:
        return
    if recorder.found[record.index].is_recurrent:
        # A cell's sigmoid is a state: the next step reads it, so the loss must read it as well.
        if marked is not output:
            keras.set_beside(marked, _LOGITS, None)
        return
    record.logits = (record.key("carried_logits"),)
    keras.set_beside(marked, _LOGITS, recorder.marked("logits", *record.logits, logits))
