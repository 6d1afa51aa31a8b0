"""Collects what a pass shows of chosen layers: their calls, in order, and the tensors that are wanted.

A layer that is watched returns *marked* copies of its tensors, so that a gradient with respect to a mark is
the gradient through that use alone. `joined` makes one of the calls that a TimeDistributed makes of one
layer, one for each outer step: its samples are those of the outer batch, each with all its outer steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

from throughtime.adapters.needs import bytes_of
from throughtime.adapters.records import Array, Request

from . import cell as cells
from .cell import CELL
from .contracts import Held, Layer, Shape, Tensor
from .dialect import Dialect, Mark, Result
from .every_step import OF_GATES, wants_jacobian
from .find import Found
from .library import dtype_of, is_float, is_tensor, numpy, shape_of
from .meter import Meter

CARRIED = ("_keras_mask", "_keras_logits")  # what a loss reads from a tensor besides its values
Left = dict[str, Any]  # by a loop: what `every_step.EveryStep` takes
_SUMMED = ("weight_", "within_weight_")
_BY_TIME = ("loop_", "tap_", "within_tap_", "within_0.")  # (time, sample, …); the others are (sample, …)


@dataclass
class SeenInside:
    """One direction inside a recurrent layer; outlives the trace."""

    call: SeenCall
    part: int  # which of the directions of its call
    layer: Held  # weak
    is_closed: bool  # it ran its own kernel, and `cells` solves it
    # as `every_step.EveryStep.dropout`, with keys in place of masks
    dropout: list[dict[str, list[str]]] = field(default_factory=list)
    kept: tuple[str, ...] = ()  # this and `handed_on` as `loop.Loop` has them
    handed_on: tuple[str, ...] = ()
    some: int | None = None  # see `loop.Loop`

    def key(self, name: str) -> str:
        """Name one tensor of this direction among all that a pass returns."""
        return self.call.key(name, self.part)


@dataclass
class SeenCall:
    """One call of one watched layer, without its tensors."""

    index: int  # which layer
    number: int  # which of its calls, from 1
    group: int  # calls of one group make one leaf: those of all outer steps of a TimeDistributed
    outer_steps: int = 0  # samples that a TimeDistributed makes of each sample; 0 without one
    outputs: int = 0  # how many tensors others see of what it returned
    output_dtype: str = ""  # empty where there is no such tensor
    input_dtype: str = ""
    input_shape: tuple[int, ...] = ()  # empty where it is not known before the pass
    logits: tuple[str, ...] = ()  # keys of the marked logits behind the output, of each step if several
    not_inside: str = ""  # why it was not looked into
    inside: list[SeenInside] = field(default_factory=list)

    def key(self, name: str, part: int = 0) -> str:
        """Name one tensor of this call among all that a pass returns."""
        return f"{self.index}.{self.number}.{name}.{part}"


@dataclass
class Recorder:
    """The record of one pass.

    `wanted` has what to mark: "inputs", "outputs", "logits", "inside", "inside_gradients", "weights"; and
    what to keep: "output", "input", "valid".
    """

    keras: Dialect
    found: Sequence[Found]
    mark: Mark
    wanted: frozenset[str]
    request: Request
    meter: Meter
    calls: list[SeenCall] = field(default_factory=list)  # those that have returned
    current: list[SeenCall] = field(default_factory=list)  # those that have not
    tensors: dict[str, Tensor] = field(default_factory=dict)  # what the pass is to return
    loops: dict[str, Left] = field(default_factory=dict)  # what each has left, as `every_step.EveryStep`
    # keys of what `throughtime.mark` names outside of every loop
    named: list[str] = field(default_factory=list)
    flows_back: bool = False  # a gradient does, through what is called from now on
    # layers called in a loop or branch of the user's, and not watched
    in_a_loop: set[int] = field(default_factory=set)
    outer_steps: dict[int, int] = field(default_factory=dict)  # of each TimeDistributed that runs
    outer_calls: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._differentiates = "weights" in self.wanted or "weight_gradients" in self.request.quantities
        self._is_in_a_loop = self.keras.loop_detector()

    def new_call(self, index: int) -> SeenCall | None:
        """Begin the record of a call; None within a loop or branch, where nothing can be watched."""
        if self._is_in_a_loop():
            self.in_a_loop.add(index)
            return None
        number, outer = sum(call.index == index for call in self.calls) + 1, self.found[index].outer
        if outer is None or self.keras.JOINS_OUTER_STEPS:
            joined = prod(self.outer_steps.values()) if self.outer_steps else 0
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
    def within(self, outer: Layer | None, steps: int) -> Iterator[None]:
        """Let a TimeDistributed run."""
        self.outer_calls[id(outer)] += 1
        self.outer_steps[id(outer)] = steps
        try:
            yield
        finally:
            del self.outer_steps[id(outer)]

    def is_called_as(self, entry: Found) -> bool:
        """Whether the call of a layer is one on this path; it may be used alone and in a TimeDistributed."""
        running = [outer for outer in entry.around if id(outer) in self.outer_steps]
        return any(outer is entry.outer for outer in running) if running else entry.outer is None

    def measure(self, layer: Layer, tensor: Tensor, *, is_watched: bool) -> None:
        """Tell the meter of a recurrent layer's call, once its input is marked."""
        self.flows_back |= is_watched and self._differentiates
        if is_tensor(tensor):
            self.meter.add(layer, self._shape(tensor), is_watched=is_watched, flows_back=self.flows_back)

    def measure_output(self, tensors: Sequence[Tensor], *, is_watched: bool, axis: int = 0) -> None:
        """Tell the meter what a plain layer, the model or a mark gave, with its samples along `axis`."""
        self.flows_back |= is_watched and self._differentiates
        size = 0
        for tensor in filter(is_tensor, tensors):
            shape = self._shape(tensor, axis)
            size += 0 if None in shape else prod(shape) * bytes_of(dtype_of(tensor))
        self.meter.add_output(size, is_watched=is_watched, flows_back=self.flows_back)

    def _shape(self, tensor: Tensor, axis: int = 0) -> Shape:
        """Give a tensor's shape, with the samples of this batch where the pass leaves them open."""
        shape = shape_of(tensor)
        if len(shape) > axis and shape[axis] is None:
            outer = prod(self.outer_steps.values()) if self.keras.JOINS_OUTER_STEPS else 1
            shape = (*shape[:axis], self.meter.samples * outer, *shape[axis + 1 :])
        return shape

    def marked(self, wanted: str, name: str, tensor: Tensor) -> Tensor:
        """Mark a tensor if its kind is wanted and it is a float; masks and logits travel along."""
        keras = self.keras
        if wanted not in self.wanted or not is_tensor(tensor) or not is_float(dtype_of(tensor)):
            return tensor
        self.flows_back = True
        copy = self.mark(name, tensor)
        for carried in CARRIED:
            if (value := keras.beside(tensor, carried)) is not None:
                keras.set_beside(copy, carried, value)
        return copy

    def hear(self, name: str, tensor: Tensor) -> Tensor:
        """Mark and keep what `throughtime.mark` names outside of every loop."""
        key = f"named.{len(self.named)}.{name}"
        self.named.append(key)
        marked = self.marked("outputs", key, tensor)
        self.keep(key, marked)
        self.measure_output([marked], is_watched=True)
        return marked

    def keep(self, key: str, tensor: Tensor) -> str:
        """Let the pass return a tensor."""
        self.tensors[key] = tensor
        return key


def first_of(value: object) -> Any:
    """Take the first of several tensors: the sequence before its states, the mask before theirs."""
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    return value


def with_first(value: object, first: object) -> object:
    """Replace the first of several tensors."""
    if not isinstance(value, (list, tuple)):
        return first
    return [with_first(value[0], first), *value[1:]]


def lies_within_steps(keras: Dialect, cell: Layer, request: Request) -> bool:
    """Whether a quantity that was asked for lies within the steps of a cell, and not in the loop alone."""
    parts, quantities = cells.inner_cells(cell), request.quantities
    if quantities & {"gate_activation", *OF_GATES} or any(
        wants_jacobian(keras, each, request) for each in parts
    ):
        return True
    if "cell_gradient" in quantities and any(CELL in cells.state_names(part) for part in parts):
        return True
    return len(parts) > 1 and bool(quantities & {"input_gradient", "output_gradient"})


def joined(calls: Sequence[SeenCall], result: Result) -> tuple[list[SeenCall], Result]:
    """Give each group of calls one call, and its tensors and gradients under that call's keys."""
    groups: dict[tuple[int, int], list[SeenCall]] = {}
    for call in calls:
        groups.setdefault((call.index, call.group), []).append(call)
    several = [group for group in groups.values() if len(group) > 1]
    tensors, gradients = dict(result.tensors), dict(result.gradients)
    for found in (tensors, gradients):
        for group in several:
            first, *_ = starts = [call.key("", 0).removesuffix(".0") for call in group]
            names = {key.removeprefix(start) for start in starts for key in found if key.startswith(start)}
            for name in names:
                each = [found.get(start + name) for start in starts]
                found[first + name] = _joined(name, [None if one is None else numpy(one) for one in each])
    return [_call(group) for group in groups.values()], Result(tensors, gradients)


def _call(group: Sequence[SeenCall]) -> SeenCall:
    first, count = group[0], len(group)
    if count == 1:
        return first
    shape = (first.input_shape[0] * count, *first.input_shape[1:]) if first.input_shape else ()
    return replace(first, outer_steps=first.outer_steps or count, input_shape=shape)


def _joined(name: str, arrays: Sequence[Array | None]) -> Array:
    """(sample, …) of each outer step to (sample · outer step, …); weights' gradients are added."""
    like = next(array for array in arrays if array is not None)
    filled = [np.zeros_like(like) if array is None else array for array in arrays]
    if like.ndim == 0:
        return np.asarray(max(filled))
    if name.startswith(_SUMMED):
        return np.asarray(np.sum(filled, axis=0))
    axis = 2 if name.startswith(_BY_TIME) else 1
    stacked = np.stack(filled, axis=axis)
    return stacked.reshape(*stacked.shape[: axis - 1], -1, *stacked.shape[axis + 1 :])
