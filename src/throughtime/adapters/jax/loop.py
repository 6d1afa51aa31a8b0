"""A scan of the program as a layer: which carries are states, what enters and leaves, gates and marks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax.numpy as jnp

from throughtime._vocabulary import RESERVED
from throughtime.adapters.marking import GATE_NAMES, PREFIX, unique

from .gates import Body, Gate, Recognised, recognised
from .program import Op, Program, Value

_KEY = re.compile(r"(?:\['(\w+)'\]|\.(\w+))$")

Axis = Callable[[int], int | None]  # the axis of samples of a value, by its key


@dataclass(frozen=True)
class State:
    """A carry that changes from step to step.

    Attributes
    ----------
    place : int
        Among the carries.
    key : int
        The value in the body that a zero is added to.
    name : str
        Empty where it has no axis of samples, so that the tree cannot show it.
    axis : int or None
        Its axis of samples; None for a program on a single sample.
    """

    place: int
    key: int
    name: str
    axis: int | None


@dataclass(eq=False)
class Loop:
    """One scan.

    Attributes
    ----------
    op : Op
    axis : callable
        Gives the axis of samples of a value; None where it has none.
    is_single : bool
        The whole batch is one sample, and no value has an axis of samples.
    runs_backward : bool
        The last step of the input is processed first.
    is_flipped : bool
        The program turns the input around before the loop, so that the loop's order is not the input's.
    """

    op: Op
    axis: Axis
    is_single: bool
    is_flipped: bool

    # What the equation says.

    @property
    def body(self) -> Program:
        """What a step computes."""
        assert self.op.body is not None
        return self.op.body

    @property
    def length(self) -> int:
        """Number of steps."""
        return int(self.op.eqn.params["length"])

    @property
    def reverse(self) -> bool:
        """Whether the loop starts at the last step."""
        return bool(self.op.eqn.params["reverse"])

    @property
    def runs_backward(self) -> bool:
        """Whether the last step of the input is processed first."""
        return self.reverse != self.is_flipped

    @cached_property
    def _split(self) -> tuple[int, int]:
        consts = int(self.op.eqn.params["num_consts"])
        return consts, consts + int(self.op.eqn.params["num_carry"])

    def parts(self, values: Any) -> tuple[Any, Any, Any]:
        """Split what enters into constants, carries and what has a step each."""
        first, second = self._split
        return values[:first], values[first:second], values[second:]

    @property
    def carried(self) -> tuple[Value, ...]:
        """Values in the body that it hands to the next step."""
        return self.body.outputs[: self._split[1] - self._split[0]]

    @property
    def emitted(self) -> tuple[Value, ...]:
        """Values in the body that each step hands out."""
        return self.body.outputs[self._split[1] - self._split[0] :]

    # What it means.

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
    def reader(self) -> Body:
        """Reads the body backwards."""
        before = self.parts(self.body.inputs)[1]
        floating = {k: v for k, v in self.changing.items() if self.is_floating(v) and isinstance(v, int)}
        return Body(self.body, {k: before[k] for k in floating}, floating)

    @cached_property
    def cell(self) -> Recognised | None:
        """What the body is recognised as, by the states that the tree shows."""
        found = recognised(self.reader)
        return found if found is not None and set(found.states) == set(self._shown) else None

    @property
    def kind(self) -> str:
        """Kind of the layer: a known cell, or `rnn`."""
        return "rnn" if self.cell is None else self.cell.kind

    @property
    def gates(self) -> Mapping[str, Gate]:
        """Gates of a known cell."""
        return {} if self.cell is None else self.cell.gates

    @cached_property
    def _shown(self) -> list[int]:
        after = self.reader.after
        return [k for k, key in after.items() if isinstance(key, int) and self.has_samples(key)]

    def has_samples(self, key: int) -> bool:
        """Whether a value has an axis of samples, or is all there is of one sample."""
        return self.axis(key) is not None or (self.is_single and bool(self.body.shapes[key].shape))

    @cached_property
    def states(self) -> list[State]:
        """All carries that have a total derivative, the one that is handed out first."""
        after = self.reader.after
        named = self._state_names()
        order = [*named, *(k for k in after if k not in named)]
        return [
            State(k, after[k], named.get(k, ""), self.axis(after[k]))
            for k in order
            if isinstance(after[k], int) and after[k] not in self.body.inputs
        ]

    @property
    def shown(self) -> list[State]:
        """Those that the tree shows."""
        return [state for state in self.states if state.name]

    def _state_names(self) -> dict[int, str]:
        if self.cell is not None:
            return dict(zip(self.cell.states, ("hidden", "cell"), strict=False))
        after = self.reader.after
        handed = [self.reader.source(value) for value in self.emitted]
        first = next((k for value in handed for k in self._shown if after[k] == value), None)
        order = sorted(self._shown, key=lambda k: k != first)
        if len(order) == 1:
            return {order[0]: "hidden"}
        known = {k: self._marked.get(after[k]) or self._name_of_carry(k) for k in order}
        names = {k: known[k] or ("hidden" if k == first else f"state_{n}") for n, k in enumerate(order)}
        is_clear = len(set(names.values())) == len(names)
        return names if is_clear else {k: f"state_{n}" for n, k in enumerate(order)}

    def _name_of_carry(self, place: int) -> str:
        """Read the name of a carry in a dict or a class from the trace."""
        paths = getattr(self.op.eqn.params["jaxpr"].jaxpr.debug_info, "result_paths", None) or ()
        found = _KEY.search(str(paths[place])) if place < len(paths) else None
        name = (found[1] or found[2]) if found else ""
        return name if name in ("hidden", "cell") or name not in RESERVED else ""

    @cached_property
    def _marked(self) -> dict[Value, str]:
        """Names given by `tt.mark`, by the value that was marked."""
        return {self.reader.source(key): name for name, key in marked(self.body)}

    @cached_property
    def marks(self) -> dict[str, int]:
        """Values with a name of the caller's, beside states and known gates, that have an axis of samples."""
        states, found = {state.key for state in self.states}, dict[str, int]()
        for name, key in marked(self.body):
            is_known = self.reader.source(key) in states or (self.gates and name in GATE_NAMES)
            if not is_known and self.is_floating(key) and self.has_samples(key):
                found[unique(name, found)] = key
        return found

    @cached_property
    def input(self) -> int | None:
        """Which of what has a step each is the input: the first that is floating and has samples."""
        keys = list(enumerate(self.parts(self.body.inputs)[2]))
        fitting = [k for k, key in keys if self.is_floating(key) and self.has_samples(key)]
        wide = [k for k in fitting if len(self.body.shapes[keys[k][1]].shape) > (not self.is_single)]
        return next(iter([*wide, *fitting]), None)

    @cached_property
    def output(self) -> int | None:
        """Which of what each step hands out is the output; None where it hands out nothing of the kind."""
        fitting = [
            k
            for k, key in enumerate(self.emitted)
            if isinstance(key, int) and self.is_floating(key) and self.has_samples(key)
        ]
        states = {state.key for state in self.shown}
        return next(
            iter(sorted(fitting, key=lambda k: self.reader.source(self.emitted[k]) not in states)), None
        )

    @cached_property
    def output_state(self) -> State | None:
        """The state that is the output; None where the output is another value."""
        if self.output is None:
            return self.shown[0]
        key = self.reader.source(self.emitted[self.output])
        return next((state for state in self.shown if state.key == key), None)

    @cached_property
    def inner(self) -> list[Op]:
        """Loops within the body."""
        return [op for op in self.body.walk() if op.name == "scan"]


def marked(program: Program) -> list[tuple[str, int]]:
    """List what `tt.mark` names outside of the program's loops: names, and keys of the marked values."""
    named = [(str(op.eqn.params["name"]), op.outputs[0]) for op in program.ops if op.name == "name"]
    return [(name.removeprefix(PREFIX), key) for name, key in named if name.startswith(PREFIX)]


def loops(program: Program, axis: Axis, *, is_single: bool) -> list[Loop]:
    """List the loops that carry a state, in the order of the program."""
    made = {key: op for op in program.ops for key in op.outputs}
    found = []
    for op in program.ops:
        if op.name == "scan":
            loop = Loop(op, axis, is_single, is_flipped=_is_flipped(op, made))
            found += [loop] if loop.shown else []
    return found


def _is_flipped(scan: Op, made: Mapping[int, Op]) -> bool:
    """Whether all that has a step each comes from the program turned around in time."""
    first = int(scan.eqn.params["num_consts"]) + int(scan.eqn.params["num_carry"])
    values = scan.inputs[first:]
    return bool(values) and all(_is_reversed(value, 0, made) for value in values)


def _is_reversed(value: Value, axis: int, made: Mapping[int, Op]) -> bool:
    """Follow an axis back to where a value was turned around along it."""
    op = made.get(value) if isinstance(value, int) else None
    if op is None:
        return False
    if op.name == "rev":
        return axis in op.eqn.params["dimensions"]
    if op.name == "transpose":
        return _is_reversed(op.inputs[0], op.eqn.params["permutation"][axis], made)
    return op.name in ("copy", "convert_element_type") and _is_reversed(op.inputs[0], axis, made)
