"""Marks the logits behind a layer's softmax or sigmoid while the layer runs.

Shared by the adapters of every Keras.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


def watched_whole(recorder: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the call of a layer that is a softmax and nothing else: its input are the logits."""

    @functools.wraps(original)
    def call(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        record = recorder.current[-1]
        record.logits = (record.key("logits"),)
        return original(recorder.marked("logits", *record.logits, inputs), *args, **kwargs)

    return call


class Activations:
    """Stands in for an activation during one call of a layer, and remembers which use gave which output."""

    def __init__(self, recorder: Any, function: Callable[..., Any]) -> None:
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


def hand_on(tensors: Any, recorder: Any, record: Any, output: Any, marked: Any) -> None:
    """Let the loss read marked logits of a layer's marked output, where it reads logits at all.

    Parameters
    ----------
    tensors : module
        What reads and writes the logits that travel with a tensor.
    recorder, record : of the pass, and of the layer's call
    """
    logits = tensors.keras_logits(output)
    if logits is None or record.logits:
        return
    if recorder.found[record.index].is_recurrent:
        # A cell's sigmoid is a state: the next step reads it, so the loss must read it as well.
        if marked is not output:
            tensors.forget_keras_logits(marked)
        return
    record.logits = (record.key("carried_logits"),)
    tensors.set_keras_logits(marked, recorder.marked("logits", *record.logits, logits))
