"""Collects what a pass shows of chosen layers: their calls, in order, and the tensors that are wanted.

A layer that is watched hands on *marked* copies of its tensors, so that a gradient with respect to a mark is
the gradient through that use alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

from throughtime.adapters.records import Request

from .dialect import Dialect, Mark
from .find import Found
from .meter import Meter, Sized
from .seen import SeenCall

CARRIED = ("_keras_mask", "_keras_logits")  # what a loss reads from a tensor besides its values


class Recorder:
    """What is known of one pass.

    Parameters
    ----------
    keras : Dialect
    found : sequence of Found
    mark : callable (key, tensor) -> tensor
        Makes a copy of a tensor that the loss can be differentiated with respect to.
    wanted : set of str
        What to mark: "inputs", "outputs", "logits", "inside", "inside_gradients", "weights"; what to keep:
        "output", "input", "valid".
    request : Request
    meter : Meter
        Is told of every call of a recurrent layer.

    Attributes
    ----------
    calls, current : list of SeenCall
        Those that have returned, and those that have not.
    tensors : dict of str to tensor
        What the pass is to return.
    loops : dict of str to structure
        What each loop has left, as `every_step.Recorded`, for what lies within its steps.
    named : list of str
        Keys of what `throughtime.mark` names outside of every loop.
    flows_back : bool
        A gradient flows back through what is called from now on.
    in_a_loop : set of int
        Layers that were called within a loop or branch of the user's, and not watched there.
    outer_steps, outer_calls
        Steps of each TimeDistributed that is running; how often each was called.
    """

    def __init__(
        self,
        keras: Dialect,
        found: Sequence[Found],
        mark: Mark,
        wanted: frozenset[str],
        request: Request,
        meter: Meter,
    ) -> None:
        self.keras, self.found, self.wanted, self.request, self.meter = keras, found, wanted, request, meter
        self.calls: list[SeenCall] = []
        self.current: list[SeenCall] = []
        self.tensors: dict[str, Any] = {}
        self.loops: dict[str, Any] = {}
        self.named: list[str] = []
        self.flows_back = False
        self.in_a_loop: set[int] = set()
        self.outer_steps: list[int] = []
        self.outer_calls: dict[int, int] = {}
        self._mark = mark
        self._differentiates = "weights" in wanted or "weight_gradients" in request.quantities
        self._is_in_a_loop = keras.loop_detector()

    def new_call(self, index: int) -> SeenCall | None:
        """Begin the record of a call; None within a loop or branch, where nothing can be watched."""
        if self._is_in_a_loop():
            self.in_a_loop.add(index)
            return None
        number, outer = sum(call.index == index for call in self.calls) + 1, self.found[index].outer
        if outer is None or self.keras.JOINS_OUTER_STEPS:
            joined = prod(self.outer_steps) if self.outer_steps else 0
            return SeenCall(index, number, group=number, outer_steps=joined)
        return SeenCall(index, number, group=self.outer_calls[id(outer)])

    @contextmanager
    def recording(self, record: SeenCall) -> Iterator[None]:
        """Let a call be the one that runs."""
        self.current.append(record)
        try:
            yield
        finally:
            self.current.pop()
        self.calls.append(record)

    @contextmanager
    def within(self, outer: Any, steps: int) -> Iterator[None]:
        """Let a TimeDistributed run."""
        self.outer_calls[id(outer)] = self.outer_calls.get(id(outer), 0) + 1
        self.outer_steps.append(steps)
        try:
            yield
        finally:
            self.outer_steps.pop()

    def measure(self, layer: Any, tensor: Any, *, is_watched: bool) -> None:
        """Tell the meter of a recurrent layer's call, once its input is marked."""
        self.flows_back |= is_watched and self._differentiates
        if self.keras.is_tensor(tensor):
            self.meter.add(layer, self.sized(tensor), is_watched=is_watched, flows_back=self.flows_back)

    def measure_output(self, tensors: Sequence[Any], *, is_watched: bool) -> None:
        """Tell the meter what a layer that is not recurrent returned, or the model."""
        self.flows_back |= is_watched and self._differentiates
        sized = [self.sized(tensor) for tensor in tensors if self.keras.is_tensor(tensor)]
        self.meter.add_output(sized, is_watched=is_watched, flows_back=self.flows_back)

    def sized(self, tensor: Any) -> Sized:
        """Give a tensor's shape, with the samples of this batch where the pass leaves them open."""
        shape = self.keras.shape_of(tensor)
        if shape and shape[0] is None:
            outer = prod(self.outer_steps) if self.keras.JOINS_OUTER_STEPS and self.outer_steps else 1
            shape = (self.meter.samples * outer, *shape[1:])
        return Sized(shape, self.keras.dtype_of(tensor))

    def marked(self, wanted: str, name: str, tensor: Any) -> Any:
        """Mark a tensor if its kind is wanted and it is a float; masks and logits travel along."""
        keras = self.keras
        if wanted not in self.wanted or not keras.is_tensor(tensor) or not keras.is_float(tensor):
            return tensor
        self.flows_back = True
        copy = self._mark(name, tensor)
        for carried in CARRIED:
            if (value := keras.beside(tensor, carried)) is not None:
                keras.set_beside(copy, carried, value)
        return copy

    def hear(self, name: str, tensor: Any) -> Any:
        """Mark and keep what `throughtime.mark` names outside of every loop."""
        key = f"named.{len(self.named)}.{name}"
        self.named.append(key)
        marked = self.marked("outputs", key, tensor)
        self.keep(key, marked)
        return marked

    def keep(self, key: str, tensor: Any) -> str:
        """Let the pass return a tensor."""
        self.tensors[key] = tensor
        return key


def first_of(value: Any) -> Any:
    """Take the first of several tensors: the sequence before its states, the mask before theirs."""
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    return value


def with_first(value: Any, first: Any) -> Any:
    """Replace the first of several tensors."""
    if not isinstance(value, (list, tuple)):
        return first
    return [with_first(value[0], first), *value[1:]]
