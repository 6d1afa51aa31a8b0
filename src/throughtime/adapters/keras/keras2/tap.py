"""Watches chosen layers during one forward pass: what goes in, what comes out, which mask came along.

Each layer's `call` is wrapped on the instance while the model runs and taken off afterwards; the layer
computes with its own kernel. A wrapped layer hands on *marked* copies of its tensors, so that a gradient with
respect to a mark is the gradient through that use alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from math import prod
from typing import Any, NamedTuple

import tensorflow as tf

from throughtime.adapters.attributes import replaced
from throughtime.adapters.keras import named
from throughtime.adapters.keras.library import is_a, is_recurrent
from throughtime.adapters.keras.meter import Meter
from throughtime.adapters.keras.seen import SeenCall
from throughtime.adapters.marking import listening
from throughtime.adapters.records import Request

from . import inside, logits, ways
from .arrays import is_float, shape_of
from .find import Found
from .internals import as_a_call, as_keras_calls, carry, every_layer, runs_in_a_loop

Mark = Callable[[str, Any], Any]


class Sized(NamedTuple):
    """What the meter reads of a tensor."""

    shape: tuple[Any, ...]
    dtype: Any


class Recorder:
    """Collects the calls of the watched layers, in order, and the tensors that are wanted of them.

    Parameters
    ----------
    mark : callable (key, tensor) -> tensor
        Makes a copy of a tensor that the loss can be differentiated with respect to.
    wanted : set of str
        What to mark: "inputs", "outputs", "logits", "inside", "weights"; what to keep: "output", "input",
        "valid".
    request : Request
    meter : Meter
        Is told of every call of a recurrent layer.
    samples : int
        Of the batch, where the pass leaves that open.
    """

    def __init__(
        self,
        found: Sequence[Found],
        mark: Mark,
        wanted: frozenset[str],
        request: Request,
        meter: Meter,
        samples: int,
    ) -> None:
        self.found = found
        self.mark = mark
        self.wanted = wanted
        self.request = request
        self.training = request.training
        self.meter = meter
        # A gradient flows back through what is called from now on.
        self.flows_back = False
        self._differentiates = "weights" in wanted or "weight_gradients" in request.quantities
        self._samples = samples
        self.calls: list[SeenCall] = []
        self.named: list[str] = []
        self.current: list[SeenCall] = []
        self.tensors: dict[str, Any] = {}
        self.in_a_loop: set[int] = set()
        self.outer_steps: list[int] = []
        self._graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()

    @contextmanager
    def watching(self, model: Any) -> Iterator[None]:
        """Wrap the layers' calls for the duration of the block."""
        with ExitStack() as stack:
            stack.enter_context(listening(self._hear))
            for index, entry in enumerate(self.found):
                layer = entry.watched
                looks_inside = "inside" in self.wanted and not ways.why_not(layer, self.training)
                if looks_inside and is_a(layer, "Bidirectional"):
                    inside.watch_halves(self, layer, stack)
                original = logits.watched(self, layer, as_keras_calls(layer, layer.call))
                if looks_inside and is_a(layer, "RNN"):
                    original = inside.watched(self, layer, original, inspect.signature(layer.call))
                stack.enter_context(replaced(layer, "call", self._wrap(index, entry, original)))
            for layer in self._running_along(model):
                stack.enter_context(replaced(layer, "call", self._metered(layer)))
            for outer in self._outer_layers():
                stack.enter_context(replaced(outer, "call", self._counted(outer)))
            yield

    def _hear(self, name: str, tensor: Any) -> Any:
        """Mark what `throughtime.mark` names outside of every loop."""
        key = named.key(len(self.named), name)
        self.named.append(key)
        marked = self.marked("outputs", key, tensor)
        self.keep(key, marked)
        return marked

    def _running_along(self, model: Any) -> list[Any]:
        """Recurrent layers that nothing is asked of; they take memory as well."""
        recurrent = [layer for layer in every_layer(model) if is_recurrent(layer)]
        halves = [half for layer in recurrent for half in ways.halves(layer) if half is not layer]
        others = {id(layer) for layer in [*halves, *(entry.watched for entry in self.found)]}
        return [layer for layer in recurrent if id(layer) not in others]

    def _metered(self, layer: Any) -> Callable[..., Any]:
        original, signature = as_keras_calls(layer, layer.call), inspect.signature(layer.call)

        def call(*args: Any, **kwargs: Any) -> Any:
            given = next(iter(signature.bind(*args, **kwargs).arguments.values()))
            self._measure(layer, inside.first_of(given), is_watched=False)
            with listening(None):
                return original(*args, **kwargs)

        return as_a_call(call, signature)

    def _measure(self, layer: Any, tensor: Any, *, is_watched: bool) -> None:
        """Tell the meter of a recurrent layer's call."""
        self.flows_back |= is_watched and self._differentiates
        if tf.is_tensor(tensor):
            self.meter.add(layer, self.sized(tensor), is_watched=is_watched, flows_back=self.flows_back)

    def sized(self, tensor: Any) -> Sized:
        """Give a tensor's shape, with the samples of this batch where the pass leaves them open."""
        shape = shape_of(tensor)
        if shape and shape[0] is None:
            shape = (self._samples * (prod(self.outer_steps) if self.outer_steps else 1), *shape[1:])
        return Sized(shape, tensor.dtype)

    def _outer_layers(self) -> list[Any]:
        """Every TimeDistributed around a watched layer, and between it and the outermost."""
        outermost = {id(entry.outer): entry.outer for entry in self.found if entry.outer is not None}
        inner = [layer for outer in outermost.values() for layer in every_layer(outer)]
        return list({id(layer): layer for layer in inner if is_a(layer, "TimeDistributed")}.values())

    def _counted(self, outer: Any) -> Callable[..., Any]:
        """Wrap a TimeDistributed's call to know how many steps it has."""
        original, signature = outer.call, inspect.signature(outer.call)

        def call(*args: Any, **kwargs: Any) -> Any:
            inputs = inside.first_of(next(iter(signature.bind(*args, **kwargs).arguments.values())))
            self.outer_steps.append(int(shape_of(inputs)[1] or 0))
            try:
                return original(*args, **kwargs)
            finally:
                self.outer_steps.pop()

        return as_a_call(call, signature)

    def _wrap(self, index: int, entry: Found, original: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(entry.watched.call)

        def call(*args: Any, **kwargs: Any) -> Any:
            if runs_in_a_loop(self._graph):
                self.in_a_loop.add(index)
                return original(*args, **kwargs)
            number = sum(call.index == index for call in self.calls) + 1
            record = SeenCall(index, number, group=number)
            record.outer_steps = prod(self.outer_steps) if self.outer_steps else 0
            bound = signature.bind(*args, **kwargs)
            first = next(iter(bound.arguments), "")
            value = bound.arguments.get(first)
            record.input_dtype = _dtype_of(inside.first_of(value))
            if entry.is_recurrent:
                mask = inside.first_of(bound.arguments.get("mask"))
                record.has_mask = mask is not None
                bound.arguments[first] = self._recurrent_input(record, value, mask)
                args, kwargs = bound.args, bound.kwargs
                self._measure(entry.watched, inside.first_of(bound.arguments[first]), is_watched=True)
            self.current.append(record)
            try:
                with listening(None) if entry.is_recurrent else nullcontext():  # the loop hears
                    result = original(*args, **kwargs)
            finally:
                self.current.pop()
            self.calls.append(record)
            return self._marked_result(record, entry, result)

        return as_a_call(call, signature)

    def marked(self, wanted: str, name: str, tensor: Any) -> Any:
        """Mark a tensor if its kind is wanted and it is a float; masks and logits travel along."""
        if wanted not in self.wanted or not tf.is_tensor(tensor) or not is_float(tensor.dtype):
            return tensor
        self.flows_back = True
        return carry(tensor, self.mark(name, tensor))

    def keep(self, key: str, tensor: Any) -> str:
        """Let the pass return a tensor."""
        self.tensors[key] = tensor
        return key

    def _recurrent_input(self, record: SeenCall, value: Any, mask: Any) -> Any:
        """Mark the sequence among what a recurrent layer is given, and keep it with its mask."""
        if mask is not None and "valid" in self.wanted:
            self.keep(record.key("mask"), mask)
        if not tf.is_tensor(inside.first_of(value)):
            return value
        marked = self.marked("inputs", record.key("input"), inside.first_of(value))
        if "input" in self.wanted or "inside" in self.wanted:
            self.keep(record.key("input"), marked)
        return inside.with_first(value, marked)

    def _marked_result(self, record: SeenCall, entry: Found, result: Any) -> Any:
        """Mark the outputs that others see; states that the layer returns beside them pass through."""
        several = isinstance(result, (list, tuple))
        parts = list(result) if several else [result]
        count = 2 if getattr(entry.watched, "merge_mode", "concat") is None else 1
        for part in range(min(count, len(parts))):
            if tf.is_tensor(parts[part]):  # a layer may return a dict
                parts[part] = self._marked_output(record, part, parts[part])
                if not entry.is_recurrent:
                    measured = [self.sized(parts[part])]
                    self.meter.add_output(measured, is_watched=True, flows_back=self.flows_back)
        return _packed(result, parts) if several else parts[0]

    def _marked_output(self, record: SeenCall, part: int, output: Any) -> Any:
        marked = self.marked("outputs", record.key("output", part), output)
        logits.hand_on(self, record, output, marked)
        record.outputs = part + 1
        record.output_dtype = tf.as_dtype(output.dtype).name
        if "output" in self.wanted:
            self.keep(record.key("output", part), marked)
        return marked


def _packed(result: Any, parts: list[Any]) -> Any:
    """Give marked parts the type of what was returned."""
    return type(result)(*parts) if hasattr(result, "_fields") else type(result)(parts)


def _dtype_of(tensor: Any) -> str:
    return tf.as_dtype(tensor.dtype).name if tf.is_tensor(tensor) else ""
