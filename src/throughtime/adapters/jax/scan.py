"""A scan of the program: its equation, its carries, resets and masks of these, and which cells it steps.

Resets and masks select a state or multiply it by what no state decides: `where(done, start, h)`,
`(1 - done) * h`, `where(valid, new, h)`, `valid * new + (1 - valid) * h`.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations

import jax.numpy as jnp
import numpy as np
from jax import Array

from .gates import Body, Recognised, recognised
from .program import Op, Program, Value, places_of_carries
from .samples import T

# Operations that turn an array of the batch, a counter or a constant into a decision.
_DECIDING = frozenset(
    {
        *("add", "sub", "mul", "neg", "not", "and", "or", "xor", "eq", "ne", "lt", "le", "gt", "ge", "rem"),
        *("broadcast_in_dim", "convert_element_type", "reshape", "squeeze", "transpose", "slice", "copy"),
        *("select_n", "reduce_or", "reduce_and", "stop_gradient", "iota"),
    }
)


@dataclass(frozen=True)
class Change:
    """The value that decides, and the case in which `state` stays; without one, it is multiplied."""

    key: int
    case: int | None
    state: Value

    def keeps(self, decision: Array) -> Array:
        """Give where the state stays, or what it is multiplied by."""
        return decision if self.case is None else decision == self.case


@dataclass(frozen=True)
class Changes:
    """Changes of one carry; `entered` is the state that a step computes with, `made` the new one."""

    entered: Value
    made: Value
    on_entry: Change | None = None
    on_exit: Change | None = None
    mask: Change | None = None

    @property
    def scales(self) -> bool:
        """Whether a state may be multiplied on its way, which closed forms do not know."""
        is_product = self.mask is not None and self.mask.case is None
        return is_product or bool(self.on_entry or self.on_exit)


def changes_of(body: Body, place: int, inputs: Collection[int]) -> Changes:
    """Read what happens to one carry; `inputs` are what enters step by step, and carries that count."""
    before, made = body.before[place], body.after[place]
    entered, (first, *others) = before, [*body.readers(before), None]
    on_entry = None if others[:-1] else _change(body, first, inputs, lambda value: bool(value == before))
    if on_entry is not None and first is not None and first.outputs[0] != made:
        entered = first.outputs[0]
    else:
        on_entry = None
    on_exit = _change(body, body.op(made), inputs, lambda value: before in set[Value](body.ancestors(value)))
    if on_exit is not None and on_exit.state not in (before, entered):
        made = on_exit.state
    else:
        on_exit = None
    old = {before, entered}
    mask = _selected(body, made, inputs, old) or _weighed(body, made, inputs, old)
    return Changes(entered, made if mask is None else mask.state, on_entry, on_exit, mask)


def _selected(body: Body, made: Value, inputs: Collection[int], old: Collection[Value]) -> Change | None:
    """Read `where(valid, new, old)`."""
    op = body.op(made, "select_n")
    if op is None or not set(old) & set(map(body.source, op.inputs[1:])):
        return None
    return _change(body, op, inputs, lambda value: value not in old)


def _weighed(body: Body, made: Value, inputs: Collection[int], old: Collection[Value]) -> Change | None:
    """Read `m * new + (1 - m) * old`."""
    states = set(body.before.values())
    for kept, added in permutations(body.operands(made, "add"), 2):
        for state in old:
            rest = next(body.other(kept, "mul", state), None)
            new = _change(
                body, body.op(added), inputs, lambda one: not states.isdisjoint(body.ancestors(one))
            )
            if rest is not None and new is not None and _is_rest(body, rest, new.key):
                return new
    return None


def _is_rest(body: Body, rest: Value, decision: Value) -> bool:
    """Whether a value is 1 − decision, or not the decision."""
    op = body.op(body.spread(rest), "sub", "not")
    is_rest = op is not None and (op.name == "not" or np.all(getattr(op.inputs[0], "val", 0) == 1))
    return op is not None and bool(is_rest and body.spread(op.inputs[-1]) == body.spread(decision))


def _change(
    body: Body, op: Op | None, inputs: Collection[int], is_state: Callable[[Value], bool]
) -> Change | None:
    """Read an operation whose one operand is the state, and whose other one no state decides."""
    if op is None or op.name not in ("select_n", "mul"):
        return None
    cases = op.inputs[1:] if op.name == "select_n" else op.inputs
    chosen = [k for k, value in enumerate(map(body.source, cases)) if is_state(value)]
    if len(chosen) != 1 or len(cases) != 2:
        return None
    key, case = (op.inputs[0], chosen[0]) if op.name == "select_n" else (cases[1 - chosen[0]], None)
    if not isinstance(key, int):
        return None
    found = set(body.ancestors(key))
    made = [each for one in found if (each := body.op(one)) is not None]
    decides = found & set(inputs) and not found & set(body.before.values())
    if not decides or any(each.name not in _DECIDING for each in made):
        return None
    return Change(key, case, body.source(cases[chosen[0]]))


Axis = Callable[[Value], int | None]  # the axis of samples of a value, by its key


@dataclass(frozen=True)
class State:
    """A carry that changes from step to step."""

    place: int  # among the carries
    key: Value  # in the body, that a zero is added to: what the step hands out, before any reset
    name: str  # empty where it has no axis of samples, so that the tree cannot show it
    axis: int | None  # of samples; None for a program on a single sample
    carry: Value  # in the body, that the next step is given
    changes: Changes


@dataclass(eq=False)
class Scan:
    """One scan; `axis` gives the axis of samples of a value, None where it has none."""

    op: Op
    axis: Axis
    is_single: bool  # the whole batch is one sample, and no value has an axis of samples
    is_flipped: bool  # the program turns the input around before the loop
    lengths: Value | None = None  # steps of each sample that count, where the program has them

    @property
    def body(self) -> Program:
        """The computation of a step."""
        assert self.op.body is not None
        return self.op.body

    @property
    def length(self) -> int:
        """Number of steps."""
        return int(self.op.params["length"])

    @property
    def reverse(self) -> bool:
        """Whether the loop starts at its last step."""
        return bool(self.op.params["reverse"])

    @property
    def runs_backward(self) -> bool:
        """Whether the last step of the input is processed first."""
        return self.reverse != self.is_flipped

    @cached_property
    def _split(self) -> tuple[int, int]:
        return places_of_carries(self.op.params)

    def parts(self, values: Sequence[T]) -> tuple[Sequence[T], Sequence[T], Sequence[T]]:
        """Split what enters into constants, carries and what has a step each."""
        first, second = self._split
        return values[:first], values[first:second], values[second:]

    def moved(self, values: Array, steps: int, first: Array | None = None) -> Array:
        """Move values by one step, in the order of the loop; `first`, or nothing, is at the end left over."""
        first = jnp.zeros_like(values[:1]) if first is None else first
        is_later = (steps > 0) != self.reverse
        return jnp.concatenate([first, values[:-1]] if is_later else [values[1:], first])

    @property
    def carried(self) -> tuple[Value, ...]:
        """Values in the body that it hands to the next step."""
        return self.body.outputs[: self._split[1] - self._split[0]]

    @property
    def emitted(self) -> tuple[Value, ...]:
        """Values in the body that each step hands out."""
        return self.body.outputs[self._split[1] - self._split[0] :]

    def is_floating(self, key: Value) -> bool:
        """Whether a value of the body has a gradient."""
        shape = self.body.shapes.get(key) if isinstance(key, int) else getattr(key, "aval", None)
        return shape is not None and bool(jnp.issubdtype(shape.dtype, jnp.inexact))

    @cached_property
    def changing(self) -> dict[int, Value]:
        """Carries that a step may change, by place: the others only pass through."""
        before = self.parts(self.body.inputs)[1]
        return {k: after for k, after in enumerate(self.carried) if after != before[k]}

    @cached_property
    def _whole(self) -> Body:
        """Reads the body backwards, from one carry to the next."""
        before = self.parts(self.body.inputs)[1]
        floating = {k: v for k, v in self.changing.items() if self.is_floating(v) and isinstance(v, int)}
        return Body(self.body, {k: before[k] for k in floating}, floating)

    @cached_property
    def changes(self) -> dict[int, Changes]:
        """Resets and masks of each carry that has a gradient."""
        _, before, inputs = self.parts(self.body.inputs)
        counted = [key for k, key in enumerate(before) if k not in self._whole.after and k in self.changing]
        return {k: changes_of(self._whole, k, [*inputs, *counted]) for k in self._whole.after}

    @cached_property
    def reader(self) -> Body:
        """Reads the body backwards, between resets and masks."""
        entered = {k: one.entered for k, one in self.changes.items()}
        return Body(self.body, entered, {k: one.made for k, one in self.changes.items()})

    @cached_property
    def cells(self) -> list[Recognised]:
        """The cells that the body computes, if they have all the states that the tree shows."""
        found = recognised(self.reader)
        states = [self._whole.after[k] for k in self._shown]
        ranks = (len(self.body.shape_of(one).shape) - (self.axis(one) is not None) for one in states)
        is_wide = any(rank > 1 for rank in ranks)  # by heads, or by members of an ensemble
        if is_wide or sorted(k for one in found for k in one.states) != sorted(self._shown):
            return []
        # Cells that read each other's states from the step before are one layer.
        before = {k: self.reader.before[k] for k in self._shown}
        others = ({key for k, key in before.items() if k not in one.states} for one in found)
        is_apart = not any(keys & self.sources(one) for keys, one in zip(others, found, strict=True))
        return found if is_apart else []

    def faces(self, place: int) -> set[int]:
        """List the values that a carry is in a step, once it is made: before and after mask and reset."""
        changes = self.changes[place]
        made = {changes.made, self._whole.after[place], changes.on_exit and changes.on_exit.state}
        return {key for key in made if isinstance(key, int)}

    def stops(self) -> set[Value]:
        """List what a cell is read back to."""
        faces = (self.faces(place) for place in self.changes)
        return set[Value](self.body.inputs).union(self.reader.before.values(), *faces)

    def sources(self, cell: Recognised) -> set[int]:
        """Find what a cell's gates are computed from: what enters the step, and states of other cells."""
        found = self.within(cell) & self.stops()
        return found - set[int]().union(*map(self.faces, cell.states))

    def within(self, cell: Recognised) -> set[int]:
        """List the values between a cell's gates and what it is read back to, those included."""
        stops = self.stops()
        return {key for gate in cell.gates.values() for key in self.reader.ancestors(gate.before, stops)}

    @cached_property
    def _shown(self) -> list[int]:
        return [k for k, key in self._whole.after.items() if isinstance(key, int) and self.has_samples(key)]

    def has_samples(self, key: int) -> bool:
        """Whether a value has an axis of samples, or is all there is of one sample."""
        return self.axis(key) is not None or (self.is_single and bool(self.body.shapes[key].shape))
