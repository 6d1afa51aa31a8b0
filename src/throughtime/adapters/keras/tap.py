"""Watches chosen layers during one forward pass: what goes in, what comes out, which mask came along.

Each layer's `call` is wrapped on the instance while the model runs and taken off afterwards; the layer
computes with its own kernel, fused or not. A wrapped layer hands on *marked* copies of its tensors, so
that a gradient with respect to a mark is the gradient through that use alone.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras

from .find import Found
from .internals import carry, keras_logits, set_keras_logits

Mark = Callable[[str, Any], Any]


@dataclass
class Call:
    """One call of one watched layer. Tensors belong to the framework, and to the trace if there is one."""

    index: int
    number: int
    outputs: list[Any] = field(default_factory=list)
    input: Any = None
    mask: Any = None

    def key(self, name: str, part: int = 0) -> str:
        """Name one tensor of this call among all that a pass returns."""
        return key(self.index, self.number, name, part)


def key(index: int, number: int, name: str, part: int = 0) -> str:
    """Name a tensor: which layer, which of its calls, what, and which of several."""
    return f"{index}.{number}.{name}.{part}"


class Recorder:
    """Collects the calls of the watched layers, in order."""

    def __init__(self, found: Sequence[Found], mark: Mark, *, inputs: bool, outputs: bool) -> None:
        self.found = found
        self.mark = mark
        self.inputs = inputs
        self.outputs = outputs
        self.calls: list[Call] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Wrap the layers' calls for the duration of the block."""
        wrapped: list[tuple[dict[str, Any], str, Any]] = []
        try:
            for index, entry in enumerate(self.found):
                attributes = vars(entry.layer)
                name = "quantized_call" if getattr(entry.layer, "quantization_mode", None) else "call"
                wrapped.append((attributes, name, attributes.get(name)))
                attributes[name] = self._wrap(index, entry, getattr(entry.layer, name))
            yield
        finally:
            for attributes, name, before in reversed(wrapped):
                if before is None:
                    attributes.pop(name, None)
                else:
                    attributes[name] = before

    def _wrap(self, index: int, entry: Found, original: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(original)

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            number = sum(call.index == index for call in self.calls) + 1
            record = Call(index, number)
            bound = signature.bind(*args, **kwargs)
            first = next(iter(bound.arguments), "")
            record.input = bound.arguments.get(first)
            if entry.is_recurrent:
                record.mask = bound.arguments.get("mask")
                record.input = bound.arguments[first] = self._marked_input(record, record.input)
                args, kwargs = bound.args, bound.kwargs
            result = original(*args, **kwargs)
            self.calls.append(record)
            return self._marked_result(record, entry.layer, result)

        return call

    def _marked_input(self, record: Call, tensor: Any) -> Any:
        if not self.inputs or not _is_float(tensor):
            return tensor
        return carry(tensor, self.mark(record.key("input"), tensor))

    def _marked_result(self, record: Call, layer: Any, result: Any) -> Any:
        """Mark the outputs that others see; states that the layer returns beside them pass through."""
        several = isinstance(result, (list, tuple))
        parts = list(result) if several else [result]
        count = number_of_outputs(layer)
        for part in range(min(count, len(parts))):
            parts[part] = self._marked_output(record, part, parts[part])
        return type(result)(parts) if several else parts[0]

    def _marked_output(self, record: Call, part: int, output: Any) -> Any:
        logits = keras_logits(output)
        marked = output
        if self.outputs and _is_float(output):
            marked = carry(output, self.mark(record.key("output", part), output))
        if self.outputs and logits is not None:
            # On the TensorFlow backend a loss may read these in place of the output.
            set_keras_logits(marked, self.mark(record.key("logits", part), logits))
        record.outputs.append(marked)
        return marked


def _is_float(tensor: Any) -> bool:
    dtype = getattr(tensor, "dtype", None)
    return dtype is not None and keras.backend.is_float_dtype(keras.backend.standardize_dtype(dtype))


def number_of_outputs(layer: Any) -> int:
    """Two for a Bidirectional that merges nothing, else one."""
    return 2 if getattr(layer, "merge_mode", "concat") is None else 1
