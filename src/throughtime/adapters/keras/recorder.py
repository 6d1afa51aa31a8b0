"""Collects what a pass shows of chosen layers: their calls, in order, and the tensors that are wanted.

A layer that is watched hands on *marked* copies of its tensors, so that a gradient with respect to a mark is
the gradient through that use alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

from throughtime.adapters.needs import bytes_of
from throughtime.adapters.records import Request

from . import cell as cells
from .cell import CELL
from .dialect import Dialect, Mark
from .every_step import OF_GATES
from .find import Found
from .loop import MARKED
from .meter import Meter
from .tensors import dtype_of, is_float, is_tensor, shape_of

CARRIED = ("_keras_mask", "_keras_logits")  # what a loss reads from a tensor besides its values


@dataclass
class SeenInside:
    """One direction inside a recurrent layer; outlives the trace.

    Attributes
    ----------
    layer : callable () -> the layer
    is_closed : bool
        It ran its own kernel, and `cells` solves it.
    initial_states : int
        How many states it started from.
    dropout : list
        As `every_step.EveryStep.dropout`, with keys in place of masks.
    kept, handed_on : sequence of str
        As `loop.Loop` has them.
    output : str
        The state whose sequence is the layer's output, and not returned a second time; empty for none.
    """

    layer: Callable[[], Any]
    is_closed: bool
    has_mask: bool = False
    initial_states: int = 0
    dropout: list[Any] = field(default_factory=list)
    kept: tuple[str, ...] = ()
    handed_on: tuple[str, ...] = ()
    output: str = ""


@dataclass
class SeenCall:
    """One call of one watched layer, without its tensors.

    Attributes
    ----------
    index, number : int
        Which layer, and which of its calls, from 1.
    group : int
        Calls of one group make one leaf: those of all outer steps of a TimeDistributed.
    outer_steps : int
        How many samples a TimeDistributed made of each of its own; 0 where there is none around the layer.
    outputs : int
        How many tensors others see of what it returned.
    output_dtype, input_dtype : str
        Empty where there is no such tensor, or not one.
    input_shape : tuple of int
        Empty where it is not known before the pass.
    logits : tuple of str
        Keys of the marked logits behind the output, of each step if several.
    not_inside : str
        Why this call was not looked into.
    """

    index: int
    number: int
    group: int
    outer_steps: int = 0
    outputs: int = 0
    output_dtype: str = ""
    input_dtype: str = ""
    input_shape: tuple[int, ...] = ()
    has_mask: bool = False
    logits: tuple[str, ...] = ()
    not_inside: str = ""
    inside: list[SeenInside] = field(default_factory=list)

    def key(self, name: str, part: int = 0) -> str:
        """Name one tensor of this call among all that a pass returns."""
        return f"{self.index}.{self.number}.{name}.{part}"


@dataclass
class Recorder:
    """What is known of one pass.

    Attributes
    ----------
    mark : callable (key, tensor) -> tensor
        Makes a copy of a tensor that the loss can be differentiated with respect to.
    wanted : set of str
        What to mark: "inputs", "outputs", "logits", "inside", "inside_gradients", "weights"; what to keep:
        "output", "input", "valid".
    meter : Meter
        Is told of every call of a recurrent layer.
    calls, current : list of SeenCall
        Those that have returned, and those that have not.
    tensors : dict of str to tensor
        What the pass is to return.
    loops : dict of str to structure
        What each loop has left, as `every_step.EveryStep`, for what lies within its steps.
    named : list of str
        Keys of what `throughtime.mark` names outside of every loop.
    flows_back : bool
        A gradient flows back through what is called from now on.
    in_a_loop : set of int
        Layers that were called within a loop or branch of the user's, and not watched there.
    outer_steps, outer_calls
        Steps of each TimeDistributed that is running; how often each was called.
    """

    keras: Dialect
    found: Sequence[Found]
    mark: Mark
    wanted: frozenset[str]
    request: Request
    meter: Meter
    calls: list[SeenCall] = field(default_factory=list)
    current: list[SeenCall] = field(default_factory=list)
    tensors: dict[str, Any] = field(default_factory=dict)
    loops: dict[str, Any] = field(default_factory=dict)
    named: list[str] = field(default_factory=list)
    flows_back: bool = False
    in_a_loop: set[int] = field(default_factory=set)
    outer_steps: list[int] = field(default_factory=list)
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
        self.outer_calls[id(outer)] += 1
        self.outer_steps.append(steps)
        try:
            yield
        finally:
            self.outer_steps.pop()

    def measure(self, layer: Any, tensor: Any, *, is_watched: bool) -> None:
        """Tell the meter of a recurrent layer's call, once its input is marked."""
        self.flows_back |= is_watched and self._differentiates
        if is_tensor(tensor):
            self.meter.add(layer, self._shape(tensor), is_watched=is_watched, flows_back=self.flows_back)

    def measure_output(self, tensors: Sequence[Any], *, is_watched: bool, axis: int = 0) -> None:
        """Tell the meter what a plain layer, the model or a mark gave, with its samples along `axis`."""
        self.flows_back |= is_watched and self._differentiates
        size = 0
        for tensor in filter(is_tensor, tensors):
            shape = self._shape(tensor, axis)
            size += 0 if None in shape else prod(shape) * bytes_of(dtype_of(tensor))
        self.meter.add_output(size, is_watched=is_watched, flows_back=self.flows_back)

    def _shape(self, tensor: Any, axis: int = 0) -> tuple[Any, ...]:
        """Give a tensor's shape, with the samples of this batch where the pass leaves them open."""
        shape = shape_of(tensor)
        if len(shape) > axis and shape[axis] is None:
            outer = prod(self.outer_steps) if self.keras.JOINS_OUTER_STEPS else 1
            shape = (*shape[:axis], self.meter.samples * outer, *shape[axis + 1 :])
        return shape

    def marked(self, wanted: str, name: str, tensor: Any) -> Any:
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

    def hear(self, name: str, tensor: Any) -> Any:
        """Mark and keep what `throughtime.mark` names outside of every loop."""
        key = f"named.{len(self.named)}.{name}"
        self.named.append(key)
        marked = self.marked("outputs", key, tensor)
        self.keep(key, marked)
        self.measure_output([marked], is_watched=True)
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


def lies_within_steps(cell: Any, quantities: frozenset[str]) -> bool:
    """Whether a quantity that was asked for lies within the steps of a cell, and not in the loop alone."""
    parts = cells.inner_cells(cell)
    if quantities & {"gate_activation", *OF_GATES}:
        return True
    if "cell_gradient" in quantities and any(CELL in cells.state_names(part) for part in parts):
        return True
    return len(parts) > 1 and bool(quantities & {"input_gradient", "output_gradient"})


def names_kept(cell: Any, names: Collection[str], quantities: frozenset[str]) -> tuple[str, ...]:
    """Choose among what a loop has: what is asked for, or needed for what lies within the steps."""
    if not quantities & {"gate_activation", "gate_gradient"}:
        names = [name for name in names if MARKED not in name]
    if lies_within_steps(cell, quantities):
        return tuple(names)
    unasked = {
        name
        for name in ("hidden", "cell")
        if not quantities & {name, f"{name}_gradient", f"initial_{name}_gradient"}
    }
    return tuple(name for name in names if name.partition(".")[2] not in unasked)
