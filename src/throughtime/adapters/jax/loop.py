"""A layer of the program: a scan, or one of several known cells that a scan steps together.

Cells of one scan share what it computes; each has separate states, gates, input and output.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import jax.numpy as jnp

from throughtime._vocabulary import RESERVED
from throughtime.adapters.marking import GATE_NAMES, PREFIX, unique

from .gates import Gate, Recognised
from .models import LENGTHS
from .program import Op, Program, Value, places_of_carries
from .scan import Axis, Scan, State

_KEY = re.compile(r"(?:\['(\w+)'\]|\.(\w+))$")


@dataclass(eq=False)
class Loop(Scan):
    """One layer; of several cells that a scan steps, the one named by `only`."""

    only: Recognised | None = None
    outer: Loop | None = None  # whose body has this scan

    @property
    def around(self) -> list[Loop]:
        """The loops whose bodies have this scan, from the outside in."""
        return [] if self.outer is None else [*self.outer.around, self.outer]

    @property
    def parts_of_scan(self) -> list[Loop]:
        """All layers of the same scan."""
        return [replace(self, only=one) for one in self.cells] if len(self.cells) > 1 else [self]

    @property
    def cell(self) -> Recognised | None:
        """The cell as which the body, or the layer's part of it, is recognised."""
        return self.only or (self.cells[0] if len(self.cells) == 1 else None)

    @property
    def kind(self) -> str:
        """Kind of the layer: a known cell, or `rnn`."""
        return "rnn" if self.cell is None else self.cell.kind

    @property
    def gates(self) -> Mapping[str, Gate]:
        """Gates of a known cell."""
        return {} if self.cell is None else self.cell.gates

    @property
    def gate_axis(self) -> int | None:
        """The axis of samples of all gates."""
        return self.axis(next(iter(self.gates.values())).value) if self.gates else None

    @cached_property
    def states(self) -> list[State]:
        """All carries that have a total derivative, those that the tree shows first."""
        named = self._state_names()
        order = [*named, *(k for k in self._whole.after if k not in named)]
        return [
            self._state(k, named.get(k, "")) for k in order if self._whole.after[k] not in self.body.inputs
        ]

    def _state(self, place: int, name: str) -> State:
        changes, carry = self.changes[place], self._whole.after[place]
        key = carry if changes.on_exit is None else changes.on_exit.state
        return State(place, key, name, self.axis(carry), carry, changes)

    @property
    def shown(self) -> list[State]:
        """Those that the tree shows."""
        return [state for state in self.states if state.name]

    @property
    def is_complex(self) -> bool:
        """Whether a state that the tree shows is complex."""
        dtypes = (self.body.shape_of(state.key).dtype for state in self.shown)
        return any(jnp.issubdtype(dtype, jnp.complexfloating) for dtype in dtypes)

    def _state_names(self) -> dict[int, str]:
        if self.cell is not None:
            return dict(zip(self.cell.states, ("hidden", "cell"), strict=False))
        after = {k: self.reader.source(self._state(k, "").key) for k in self._shown}
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
        paths = getattr(self.op.params["jaxpr"].jaxpr.debug_info, "result_paths", None) or ()
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
        if self.only is not None and self.only.states != self.cells[0].states:
            return found  # those of a scan are shown once
        for name, key in marked(self.body):
            is_known = self.reader.source(key) in states or (self.gates and name in GATE_NAMES)
            if not is_known and self.is_floating(key) and self.has_samples(key):
                found[unique(name, found)] = key
        return found

    @property
    def entry(self) -> int:
        """The name, no key of the body's, of what enters a cell from another cell of the step."""
        return -1 - self.shown[0].place

    @cached_property
    def below(self) -> State | None:
        """The state of another cell that is this cell's input; None where the input is the loop's."""
        if self.only is None or self.input is not None:
            return None
        found = self.sources(self.only)
        return next((one for one in self.states if not one.name and self.faces(one.place) & found), None)

    @cached_property
    def readers(self) -> list[tuple[Op, int]]:
        """The operations by which a cell reads the state of the other cell, and the places of the operand."""
        if self.below is None or self.only is None:
            return []
        faces, within = self.faces(self.below.place), self.within(self.only) - self.stops()
        return [
            (op, place)
            for op in self.body.ops
            if within & set(op.outputs)
            for place, value in enumerate(op.inputs)
            if isinstance(key := self.reader.source(value), int) and key in faces
        ]

    @cached_property
    def input(self) -> int | None:
        """Which of what has a step each is the input: the first that is floating and has samples."""
        keys = list(enumerate(self.parts(self.body.inputs)[2]))
        if self.only is not None:
            sources = self.sources(self.only)
            keys = [(k, key) for k, key in keys if key in sources]
        fitting = [(k, key) for k, key in keys if self.is_floating(key) and self.has_samples(key)]
        wide = [k for k, key in fitting if len(self.body.shapes[key].shape) > (not self.is_single)]
        return next(iter([*wide, *(k for k, _ in fitting)]), None)

    @property
    def input_axis(self) -> int | None:
        """The axis of samples of the input."""
        if self.input is None:
            return None if self.below is None else self.below.axis
        return self.axis(self.parts(self.body.inputs)[2][self.input])

    @cached_property
    def output(self) -> int | None:
        """Which of what each step hands out is the output; None where it hands out nothing of the kind."""
        fitting = [
            k
            for k, key in enumerate(self.emitted)
            if isinstance(key, int) and self.is_floating(key) and self.has_samples(key)
        ]
        states = [self.reader.source(state.key) for state in self.shown]
        handed = [self.reader.source(self.emitted[k]) for k in fitting]
        order = [k for one in states for k, key in zip(fitting, handed, strict=True) if key == one]
        return next(iter([*order, *(fitting if self.only is None else [])]), None)

    @cached_property
    def output_state(self) -> State | None:
        """The state that is the output; None where the output is another value."""
        if self.output is None:
            return self.shown[0]
        key = self.reader.source(self.emitted[self.output])
        return next((state for state in self.shown if self.reader.source(state.key) == key), None)


def marked(program: Program) -> list[tuple[str, int]]:
    """List what `tt.mark` names outside of the program's loops: names, and keys of the marked values."""
    named = [(str(op.params["name"]), op.outputs[0]) for op in program.ops if op.name == "name"]
    return [(name.removeprefix(PREFIX), key) for name, key in named if name.startswith(PREFIX)]


def loops(program: Program, axis: Axis, *, is_single: bool, outer: Loop | None = None) -> list[Loop]:
    """List the layers that carry a state, in the order of the program: loops, and loops in their bodies."""
    made = {key: op for op in program.ops for key in op.outputs}
    found: list[Loop] = []
    lengths: Op | None = None
    for op in program.ops:
        if op.name == "name" and op.params["name"] in LENGTHS:
            lengths = op
        if op.name == "scan":
            is_turned = lengths is not None and lengths.params["name"] == LENGTHS[1]
            loop = Loop(op, axis, is_single, is_turned or _is_flipped(op, made), outer=outer)
            loop.lengths, lengths = None if lengths is None else lengths.outputs[0], None
            found += loop.parts_of_scan if loop.shown else []
            found += loops(loop.body, axis, is_single=is_single, outer=loop)
    return found


def _is_flipped(scan: Op, made: Mapping[int, Op]) -> bool:
    """Whether all that has a step each comes from the program turned around in time."""
    values = scan.inputs[places_of_carries(scan.params)[1] :]
    return bool(values) and all(_is_reversed(value, 0, made) for value in values)


def _is_reversed(value: Value, axis: int, made: Mapping[int, Op]) -> bool:
    """Follow an axis back to where a value was turned around along it."""
    op = made.get(value) if isinstance(value, int) else None
    if op is None:
        return False
    if op.name == "rev":
        return axis in op.params["dimensions"]
    if op.name == "transpose":
        return _is_reversed(op.inputs[0], op.params["permutation"][axis], made)
    return op.name in ("copy", "convert_element_type") and _is_reversed(op.inputs[0], axis, made)
