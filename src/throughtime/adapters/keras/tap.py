"""Watches chosen layers during one forward pass: what goes in, what comes out, which mask came along.

Each layer's `call` is wrapped on the instance while the model runs and taken off afterwards; the layer
computes with its own kernel, fused or not. Keras hands the logits behind a softmax or sigmoid to its
crossentropies beside the output, on TensorFlow: there the output has no gradient and the logits have it. They
are marked on every backend, so that trees can be compared.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

from throughtime.adapters.attributes import replaced
from throughtime.adapters.marking import listening

from . import inside
from .cell import why_not
from .contracts import Call, Layer, Model, Tensor
from .dialect import Dialect
from .library import (
    dtype_of,
    every_layer,
    halves,
    is_a,
    is_own,
    is_recurrent,
    is_tensor,
    package_of,
    shape_of,
)
from .recorder import CARRIED, Recorder, SeenCall, first_of, with_first

_ARTIFACT = "autograph_info__"  # what TensorFlow's autograph puts on functions that it leaves alone
_FUSED = ("_can_attempt_fused_lstm", "_can_attempt_fused_gru")
_WITH_LOGITS = ("softmax", "sigmoid")
_LOGITS = CARRIED[1]


@contextmanager
def watching(recorder: Recorder, model: Model) -> Iterator[None]:
    """Wrap the layers' calls for the duration of the block."""
    with ExitStack() as stack:
        wrap = partial(_wrap, stack, recorder.keras)
        for index, entry in enumerate(recorder.found):
            layer = entry.layer
            looks_inside = "inside" in recorder.wanted and not why_not(layer)
            if looks_inside and is_a(layer, "Bidirectional"):
                # Its fused path on some backends calls neither half; each half's own kernel stays in use.
                for name in filter(partial(hasattr, layer), _FUSED):
                    stack.enter_context(replaced(layer, name, lambda *args, **kwargs: False))
                for half in halves(layer):
                    wrap(half, partial(inside.run, recorder, half, is_half=True))
            wrap(layer, _Watched(recorder, index, looks_inside))
        for layer in _running_along(recorder, model):
            wrap(layer, partial(_metered, recorder, layer))
        for outer in _outer_layers(recorder):
            wrap(outer, partial(_counted, recorder, outer))
        yield


def _wrap(
    stack: ExitStack, keras: Dialect, layer: Layer, around: Callable[[Call, inspect.BoundArguments], object]
) -> None:
    """Let a function of a layer's call, and of the arguments that it is given, stand in its place."""
    name = "quantized_call" if getattr(layer, "quantization_mode", None) else "call"
    plain = getattr(layer, name)
    signature, original = inspect.signature(plain), keras.as_keras_calls(layer, plain)

    def call(*args: object, **kwargs: object) -> object:
        return around(original, signature.bind(*args, **kwargs))

    # Keras reads the arguments of what stands for the call, and autograph leaves it alone.
    call.__signature__ = signature  # type: ignore[attr-defined]
    setattr(call, _ARTIFACT, None)
    stack.enter_context(replaced(layer, name, call))


def _running_along(recorder: Recorder, model: Model) -> list[Layer]:
    """Recurrent layers that nothing is asked of; they take memory as well."""
    recurrent = [layer for layer in every_layer(model) if is_recurrent(layer)]
    inner = [half for layer in recurrent for half in halves(layer) if half is not layer]
    others = {id(layer) for layer in [*inner, *(entry.layer for entry in recorder.found)]}
    return [layer for layer in recurrent if id(layer) not in others]


def _metered(recorder: Recorder, layer: Layer, original: Call, bound: inspect.BoundArguments) -> object:
    given = first_of(next(iter(bound.arguments.values()), None))
    recorder.measure(layer, given, is_watched=False)
    with listening(None):
        return original(*bound.args, **bound.kwargs)


def _outer_layers(recorder: Recorder) -> list[Layer]:
    """Every TimeDistributed around a watched layer, and between it and the outermost."""
    outermost = [outer for entry in recorder.found for outer in entry.around]
    inner = [layer for outer in outermost for layer in every_layer(outer)]
    return list({id(layer): layer for layer in inner if is_a(layer, "TimeDistributed")}.values())


def _counted(
    recorder: Recorder, outer: Layer | None, original: Call, bound: inspect.BoundArguments
) -> object:
    """Tell a TimeDistributed's calls apart, and know how many steps it has."""
    given = first_of(next(iter(bound.arguments.values()), None))
    with recorder.within(outer, int(shape_of(given)[1] or 0)):
        return original(*bound.args, **bound.kwargs)


class _Watched:
    """Stands around the call of a layer that is watched."""

    def __init__(self, recorder: Recorder, index: int, looks_inside: bool) -> None:
        self._recorder, self._index, self._looks_inside = recorder, index, looks_inside
        self._entry = recorder.found[index]

    def __call__(self, original: Call, bound: inspect.BoundArguments) -> object:
        recorder, layer, is_recurrent = self._recorder, self._entry.layer, self._entry.is_recurrent
        record = recorder.new_call(self._index) if recorder.is_called_as(self._entry) else None
        if record is None:
            return original(*bound.args, **bound.kwargs)
        first = next(iter(bound.arguments), "")
        given = bound.arguments.get(first)
        if is_tensor(first_of(given)):
            record.input_dtype = dtype_of(first_of(given))
        if is_recurrent:
            mask = first_of(bound.arguments.get("mask"))
            bound.arguments[first] = self._entered(record, given, mask)
        heard = listening(None) if is_recurrent else nullcontext()  # the loop hears
        with recorder.recording(record), heard:
            if self._looks_inside and is_a(layer, "RNN"):
                result = inside.run(recorder, layer, original, bound)
            else:
                result = self._with_logits_marked(original)(*bound.args, **bound.kwargs)
        return self._returned(record, result)

    def _entered(self, record: SeenCall, given: object, mask: Tensor | None) -> object:
        """Mark the sequence among what a recurrent layer is given, and keep it with its mask."""
        recorder, tensor = self._recorder, first_of(given)
        if mask is not None and "valid" in recorder.wanted:
            recorder.keep(record.key("mask"), mask)
        if not is_tensor(tensor):
            return given
        marked = recorder.marked("inputs", record.key("input"), tensor)
        shape = shape_of(marked)
        record.input_shape = () if None in shape else shape
        is_open = "valid" in recorder.wanted and not record.input_shape  # its shape is known after the pass
        if "input" in recorder.wanted or self._looks_inside or is_open:
            recorder.keep(record.key("input"), marked)
        recorder.measure(self._entry.layer, marked, is_watched=True)
        return with_first(given, marked)

    def _returned(self, record: SeenCall, result: Any) -> object:
        """Mark the outputs that others see; states that the layer returns beside them pass through."""
        several = isinstance(result, (list, tuple))
        parts = list(result) if several else [result]
        count = 2 if getattr(self._entry.layer, "merge_mode", "concat") is None else 1
        for part in range(min(count, len(parts))):
            if is_tensor(parts[part]):  # a layer may return a dict, or nothing
                parts[part] = self._marked(record, part, parts[part])
        if not several:
            return parts[0]
        return type(result)(*parts) if hasattr(result, "_fields") else type(result)(parts)

    def _marked(self, record: SeenCall, part: int, output: Tensor) -> Tensor:
        recorder = self._recorder
        marked = recorder.marked("outputs", record.key("output", part), output)
        self._hand_on_logits(record, output, marked)
        record.outputs, record.output_dtype = part + 1, dtype_of(output)
        if "output" in recorder.wanted:
            recorder.keep(record.key("output", part), marked)
        if not self._entry.is_recurrent:
            recorder.measure_output([marked], is_watched=True)
        return marked

    def _with_logits_marked(self, original: Call) -> Call:
        """Wrap a layer's call so that what goes into its softmax or sigmoid is marked, if it ends in one."""
        recorder, layer = self._recorder, self._entry.layer
        inner = layer.layer if is_a(layer, "TimeDistributed") else layer
        activation: Any = getattr(inner, "activation", None)
        has_logits = getattr(activation, "__name__", "") in _WITH_LOGITS and is_own(activation, inner)
        is_softmax = is_a(layer, "Softmax")
        if not is_softmax and (is_recurrent(inner) or not has_logits):
            return original

        def call(inputs: Tensor, *args: object, **kwargs: object) -> object:
            record = recorder.current[-1]
            if is_softmax:  # its input is the logits
                record.logits = (record.key("logits"),)
                return original(recorder.marked("logits", *record.logits, inputs), *args, **kwargs)
            outputs: list[tuple[str, Tensor]] = []  # of each use of the activation, by the key of its logits

            def applied(logits: Tensor, *args: object, **kwargs: object) -> Tensor:
                key = record.key("logits", len(outputs))
                output = activation(recorder.marked("logits", key, logits), *args, **kwargs)
                outputs.append((key, output))
                return output

            with replaced(inner, "activation", applied):
                result = original(inputs, *args, **kwargs)
            if inner is layer:  # none where the activation is not the last step
                record.logits = tuple(key for key, output in outputs if output is result)
            elif package_of(type(inner)) and len(outputs) == shape_of(inputs)[1]:
                record.logits = tuple(key for key, _ in outputs)  # of each step of a TimeDistributed
            return result

        return call

    def _hand_on_logits(self, record: SeenCall, output: Tensor, marked: Tensor) -> None:
        """Let the loss read marked logits of a layer's marked output, where it reads logits at all."""
        recorder, keras = self._recorder, self._recorder.keras
        logits = keras.beside(output, _LOGITS)
        if logits is None or record.logits:
            return
        if self._entry.is_recurrent:
            # A cell's sigmoid is a state: the next step reads it, so the loss must read it as well.
            if marked is not output:
                keras.set_beside(marked, _LOGITS, None)
            return
        record.logits = (record.key("carried_logits"),)
        keras.set_beside(marked, _LOGITS, recorder.marked("logits", *record.logits, logits))
