"""Watches chosen layers during one forward pass: what goes in, what comes out, which mask came along.

Each layer's `call` is wrapped on the instance while the model runs and taken off afterwards; the layer
computes with its own kernel, fused or not. A wrapped layer hands on *marked* copies of its tensors, so
that a gradient with respect to a mark is the gradient through that use alone.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import keras

from throughtime.adapters.attributes import replaced
from throughtime.adapters.keras import named
from throughtime.adapters.keras.meter import Meter
from throughtime.adapters.keras.seen import key
from throughtime.adapters.marking import listening
from throughtime.adapters.records import Request

from . import inside, logits, ways
from .find import Found, is_recurrent
from .internals import carry, every_layer

Mark = Callable[[str, Any], Any]


@dataclass
class Call:
    """One call of one watched layer. Tensors belong to the framework, and to the trace if there is one.

    Calls of one `group` make one leaf: those of all outer steps of a TimeDistributed.
    """

    index: int
    number: int
    group: int
    outputs: list[Any] = field(default_factory=list)
    input: Any = None
    mask: Any = None
    logits: tuple[str, ...] = ()  # keys of the marked logits behind the output, of each step if several
    inside: list[inside.Inside] = field(default_factory=list)

    def key(self, name: str, part: int = 0) -> str:
        """Name one tensor of this call among all that a pass returns."""
        return key(self.index, self.number, name, part)


class Recorder:
    """Collects the calls of the watched layers, in order.

    Parameters
    ----------
    mark : callable (key, tensor) -> tensor
        Makes a copy of a tensor that the loss can be differentiated with respect to.
    wanted : set of str
        What to mark and keep: "inputs", "outputs", "logits", "inside", "inside_gradients", "weights".
    scope : keras.StatelessScope
        The scope the pass runs in; it holds the weights' values.
    request : Request
    meter : Meter
        Is told of every call of a recurrent layer.
    """

    def __init__(
        self,
        found: Sequence[Found],
        mark: Mark,
        wanted: frozenset[str],
        scope: Any,
        request: Request,
        meter: Meter,
    ) -> None:
        self.found = found
        self.mark = mark
        self.wanted = wanted
        self.scope = scope
        self.request = request
        self.meter = meter
        # A gradient flows back through what is called from now on.
        self.flows_back = False
        self.calls: list[Call] = []
        self.named: dict[str, Any] = {}
        self.current: list[Call] = []
        self.outer_calls: dict[int, int] = {}

    @contextmanager
    def watching(self, model: Any) -> Iterator[None]:
        """Wrap the layers' calls for the duration of the block."""
        with ExitStack() as stack:
            stack.enter_context(listening(self._hear))
            for index, entry in enumerate(self.found):
                looks_inside = "inside" in self.wanted and not ways.why_not(
                    entry.layer, self.request.training
                )
                if looks_inside and isinstance(entry.layer, keras.layers.Bidirectional):
                    inside.watch_halves(self, entry.layer, stack)
                name = "quantized_call" if getattr(entry.layer, "quantization_mode", None) else "call"
                original = logits.watched(self, entry.layer, getattr(entry.layer, name))
                if looks_inside and isinstance(entry.layer, keras.layers.RNN):
                    original = inside.watched(self, entry.layer, original)
                stack.enter_context(replaced(entry.layer, name, self._wrap(index, entry, original)))
            for layer in self._running_along(model):
                stack.enter_context(replaced(layer, "call", self._metered(layer)))
            for outer in {id(entry.outer): entry.outer for entry in self.found if entry.outer}.values():
                stack.enter_context(replaced(outer, "call", self._counted(outer)))
            yield

    def _hear(self, name: str, tensor: Any) -> Any:
        """Mark what `throughtime.mark` names outside of every loop."""
        key = named.key(len(self.named), name)
        self.named[key] = self.marked("outputs", key, tensor)
        return self.named[key]

    def _running_along(self, model: Any) -> list[Any]:
        """Recurrent layers that nothing is asked of; they take memory as well."""
        recurrent = [layer for layer in every_layer(model) if is_recurrent(layer)]
        inner = [half for layer in recurrent for half in ways.halves(layer) if half is not layer]
        others = {id(layer) for layer in [*inner, *(entry.layer for entry in self.found)]}
        return [layer for layer in recurrent if id(layer) not in others]

    def _metered(self, layer: Any) -> Callable[..., Any]:
        original = layer.call

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            given = next(iter([*args, *kwargs.values()]), None)
            self.meter.add(layer, given, is_watched=False, flows_back=self.flows_back)
            with listening(None):
                return original(*args, **kwargs)

        return call

    def _counted(self, outer: Any) -> Callable[..., Any]:
        """Wrap a TimeDistributed's call to tell its calls apart."""
        original = outer.call

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            self.outer_calls[id(outer)] = self.outer_calls.get(id(outer), 0) + 1
            return original(*args, **kwargs)

        return call

    def _wrap(self, index: int, entry: Found, original: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(original)

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            number = sum(call.index == index for call in self.calls) + 1
            group = number if entry.outer is None else self.outer_calls[id(entry.outer)]
            record = Call(index, number, group)
            bound = signature.bind(*args, **kwargs)
            first = next(iter(bound.arguments), "")
            record.input = bound.arguments.get(first)
            if entry.is_recurrent:
                record.mask = bound.arguments.get("mask")
                record.input = bound.arguments[first] = self._marked_input(record, record.input)
                args, kwargs = bound.args, bound.kwargs
            self._note(entry, record.input)
            self.current.append(record)
            try:
                with listening(None) if entry.is_recurrent else nullcontext():  # the loop hears
                    result = original(*args, **kwargs)
            finally:
                self.current.pop()
            self.calls.append(record)
            marked = self._marked_result(record, entry.layer, result)
            if not entry.is_recurrent:
                self.meter.add_output(record.outputs, is_watched=True, flows_back=self.flows_back)
            return marked

        return call

    def _note(self, entry: Found, tensor: Any) -> None:
        """Tell the meter of a call, once its input is marked."""
        self.flows_back |= "weights" in self.wanted or "weight_gradients" in self.request.quantities
        if entry.is_recurrent:
            self.meter.add(entry.layer, tensor, is_watched=True, flows_back=self.flows_back)

    def marked(self, wanted: str, name: str, tensor: Any) -> Any:
        """Mark a tensor if its kind is wanted and it is a float; masks and logits travel along."""
        if wanted not in self.wanted or not _is_float(tensor):
            return tensor
        self.flows_back = True
        return carry(tensor, self.mark(name, tensor))

    def _marked_input(self, record: Call, tensor: Any) -> Any:
        return self.marked("inputs", record.key("input"), tensor)

    def _marked_result(self, record: Call, layer: Any, result: Any) -> Any:
        """Mark the outputs that others see; states that the layer returns beside them pass through."""
        several = isinstance(result, (list, tuple))
        parts = list(result) if several else [result]
        count = number_of_outputs(layer)
        for part in range(min(count, len(parts))):
            if hasattr(parts[part], "dtype"):  # a layer may return a dict, or nothing
                parts[part] = self._marked_output(record, part, parts[part])
        return type(result)(parts) if several else parts[0]

    def _marked_output(self, record: Call, part: int, output: Any) -> Any:
        marked = self.marked("outputs", record.key("output", part), output)
        logits.hand_on(self, record, output, marked)
        record.outputs.append(marked)
        return marked


def _is_float(tensor: Any) -> bool:
    dtype = getattr(tensor, "dtype", None)
    return dtype is not None and keras.backend.is_float_dtype(keras.backend.standardize_dtype(dtype))


def number_of_outputs(layer: Any) -> int:
    """Two for a Bidirectional that merges nothing, else one."""
    return 2 if getattr(layer, "merge_mode", "concat") is None else 1
