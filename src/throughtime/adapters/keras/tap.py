"""Watches chosen layers during one forward pass: what goes in, what comes out, which mask came along.

Each layer's `call` is wrapped on the instance while the model runs and taken off afterwards; the layer
computes with its own kernel, fused or not.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

from throughtime.adapters.attributes import replaced
from throughtime.adapters.marking import listening

from . import inside, logits
from .layers import every_layer, halves
from .library import is_a, is_recurrent
from .recorder import Recorder, as_a_call, first_of, with_first
from .seen import SeenCall
from .ways import why_not

Call = Callable[..., Any]


@contextmanager
def watching(recorder: Recorder, model: Any) -> Iterator[None]:
    """Wrap the layers' calls for the duration of the block."""
    with ExitStack() as stack:
        for index, entry in enumerate(recorder.found):
            layer = entry.watched
            looks_inside = "inside" in recorder.wanted and not why_not(recorder.keras, layer)
            if looks_inside and is_a(layer, "Bidirectional"):
                inside.watch_halves(recorder, layer, stack)
            _wrap(recorder, layer, _Watched(recorder, index, looks_inside), stack)
        for layer in _running_along(recorder, model):
            _wrap(recorder, layer, _metered(recorder, layer), stack)
        for outer in _outer_layers(recorder):
            _wrap(recorder, outer, _counted(recorder, outer), stack)
        yield


def _wrap(
    recorder: Recorder, layer: Any, made: Callable[[Call, inspect.Signature], Call], stack: ExitStack
) -> None:
    """Let what is made of a layer's call, and its signature, stand in its place."""
    name = "quantized_call" if getattr(layer, "quantization_mode", None) else "call"
    plain = getattr(layer, name)
    signature = inspect.signature(plain)
    call = made(recorder.keras.as_keras_calls(layer, plain), signature)
    stack.enter_context(replaced(layer, name, as_a_call(call, signature)))


def _running_along(recorder: Recorder, model: Any) -> list[Any]:
    """Recurrent layers that nothing is asked of; they take memory as well."""
    recurrent = [layer for layer in every_layer(model) if is_recurrent(layer)]
    inner = [half for layer in recurrent for half in halves(layer) if half is not layer]
    others = {id(layer) for layer in [*inner, *(entry.watched for entry in recorder.found)]}
    return [layer for layer in recurrent if id(layer) not in others]


def _metered(recorder: Recorder, layer: Any) -> Callable[[Call, inspect.Signature], Call]:
    def made(original: Call, signature: inspect.Signature) -> Call:
        def call(*args: Any, **kwargs: Any) -> Any:
            given = first_of(next(iter(signature.bind(*args, **kwargs).arguments.values()), None))
            recorder.measure(layer, given, is_watched=False)
            with listening(None):
                return original(*args, **kwargs)

        return call

    return made


def _outer_layers(recorder: Recorder) -> list[Any]:
    """Every TimeDistributed around a watched layer, and between it and the outermost."""
    outermost = {id(entry.outer): entry.outer for entry in recorder.found if entry.outer is not None}
    inner = [layer for outer in outermost.values() for layer in every_layer(outer)]
    return list({id(layer): layer for layer in inner if is_a(layer, "TimeDistributed")}.values())


def _counted(recorder: Recorder, outer: Any) -> Callable[[Call, inspect.Signature], Call]:
    """Wrap a TimeDistributed's call to tell its calls apart, and to know how many steps it has."""

    def made(original: Call, signature: inspect.Signature) -> Call:
        def call(*args: Any, **kwargs: Any) -> Any:
            given = first_of(next(iter(signature.bind(*args, **kwargs).arguments.values()), None))
            with recorder.within(outer, int(recorder.keras.shape_of(given)[1] or 0)):
                return original(*args, **kwargs)

        return call

    return made


class _Watched:
    """Makes the call of a layer that is watched."""

    def __init__(self, recorder: Recorder, index: int, looks_inside: bool) -> None:
        self._recorder, self._index, self._looks_inside = recorder, index, looks_inside
        self._entry = recorder.found[index]

    def __call__(self, original: Call, signature: inspect.Signature) -> Call:
        recorder, layer, plain = self._recorder, self._entry.watched, original
        original = logits.watched(recorder, layer, original)
        if self._looks_inside and is_a(layer, "RNN"):
            original = inside.watched(recorder, layer, original, signature)

        def call(*args: Any, **kwargs: Any) -> Any:
            record = recorder.new_call(self._index)
            if record is None:
                return plain(*args, **kwargs)
            bound = signature.bind(*args, **kwargs)
            first = next(iter(bound.arguments), "")
            given = bound.arguments.get(first)
            if recorder.keras.is_tensor(first_of(given)):
                record.input_dtype = recorder.keras.dtype_of(first_of(given))
            if self._entry.is_recurrent:
                mask = first_of(bound.arguments.get("mask"))
                bound.arguments[first] = self._entered(record, given, mask)
                args, kwargs = bound.args, bound.kwargs
            heard = listening(None) if self._entry.is_recurrent else nullcontext()  # the loop hears
            with recorder.recording(record), heard:
                result = original(*args, **kwargs)
            return self._returned(record, result)

        return call

    def _entered(self, record: SeenCall, given: Any, mask: Any) -> Any:
        """Mark the sequence among what a recurrent layer is given, and keep it with its mask."""
        recorder, tensor = self._recorder, first_of(given)
        record.has_mask = mask is not None
        if mask is not None and "valid" in recorder.wanted:
            recorder.keep(record.key("mask"), mask)
        if not recorder.keras.is_tensor(tensor):
            return given
        marked = recorder.marked("inputs", record.key("input"), tensor)
        shape = recorder.keras.shape_of(marked)
        record.input_shape = () if None in shape else shape
        is_open = "valid" in recorder.wanted and not record.input_shape  # its shape is known after the pass
        if "input" in recorder.wanted or self._looks_inside or is_open:
            recorder.keep(record.key("input"), marked)
        recorder.measure(self._entry.watched, marked, is_watched=True)
        return with_first(given, marked)

    def _returned(self, record: SeenCall, result: Any) -> Any:
        """Mark the outputs that others see; states that the layer returns beside them pass through."""
        several = isinstance(result, (list, tuple))
        parts = list(result) if several else [result]
        count = 2 if getattr(self._entry.watched, "merge_mode", "concat") is None else 1
        for part in range(min(count, len(parts))):
            if self._recorder.keras.is_tensor(parts[part]):  # a layer may return a dict, or nothing
                parts[part] = self._marked(record, part, parts[part])
        if not several:
            return parts[0]
        return type(result)(*parts) if hasattr(result, "_fields") else type(result)(parts)

    def _marked(self, record: SeenCall, part: int, output: Any) -> Any:
        recorder = self._recorder
        marked = recorder.marked("outputs", record.key("output", part), output)
        logits.hand_on(recorder, record, output, marked)
        record.outputs, record.output_dtype = part + 1, recorder.keras.dtype_of(output)
        if "output" in recorder.wanted or any(each.output for each in record.inside):
            recorder.keep(record.key("output", part), marked)
        if not self._entry.is_recurrent:
            recorder.measure_output([marked], is_watched=True)
        return marked
