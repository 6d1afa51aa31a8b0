"""Recognises LSTM, GRU and simple cells by what a loop's body computes, whoever wrote it.

An LSTM computes c' = f·c + i·g and h' = o·tanh(c'), a GRU h' = (1 − z)·n + z·h: the gates are the factors,
and what enters their activations is what `gate_gradient` is the gradient of.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations

import numpy as np

from .program import Op, Program, Value

_SAME = frozenset({"copy", "copy_p", "name", "optimization_barrier"})
_MOVED = frozenset({"transpose", "reshape", "squeeze", "convert_element_type"})
_ACTIVATIONS = {"logistic": "sigmoid", "tanh": "tanh"}


@dataclass(frozen=True)
class Gate:
    """Where a gate's activation is computed: the keys of what enters it and of its value; its name."""

    before: int
    value: Value
    activation: str


@dataclass(frozen=True, eq=False)
class Recognised:
    """The cell that a body computes; states are places among the carries, `hidden` first."""

    kind: str
    states: tuple[int, ...]
    gates: Mapping[str, Gate] = field(default_factory=dict)
    flags: Mapping[str, str | int] = field(default_factory=dict)


class Body:
    """Reads backwards what a loop's body computes from the states `before` it, by place, to those `after`."""

    def __init__(self, program: Program, before: Mapping[int, Value], after: Mapping[int, Value]) -> None:
        self._made = {key: op for op in program.ops for key in op.outputs}
        self._program = program
        self.before = before
        self.after = {place: self.source(value) for place, value in after.items()}

    def source(self, value: Value) -> Value:
        """Go back over operations that change nothing."""
        while (op := self.op(value)) is not None and op.name in _SAME:
            value = op.inputs[op.outputs.index(value)]
        return value

    def spread(self, value: Value) -> Value:
        """Go back over operations that change no more than dtype and shape."""
        while (op := self.op(self.source(value), "broadcast_in_dim", *_MOVED)) is not None:
            value = op.inputs[0]
        return self.source(value)

    def op(self, value: Value, *names: str) -> Op | None:
        """Return the operation, of one of these names, that made a value."""
        op = self._made.get(value) if isinstance(value, int) else None
        return op if op is not None and (not names or op.name in names) else None

    def operands(self, value: Value, name: str) -> tuple[Value, ...]:
        """Return both operands of a sum or product; nothing if the value is none."""
        op = self.op(self.source(value), name, *(("add_any",) if name == "add" else ()))
        return () if op is None else tuple(map(self.source, op.inputs))

    def other(self, value: Value, name: str, known: Value) -> Iterator[Value]:
        """Yield the operand beside a known one."""
        both = self.operands(value, name)
        if len(both) == 2 and known in both:
            yield both[1] if both[0] == known else both[0]

    def gate(self, value: Value) -> Gate | None:
        """Read a value as that of an activation."""
        value = self.source(value)
        op = self.op(value, *_ACTIVATIONS, "custom_jvp_call")
        if op is None or len(op.inputs) != 1 or not isinstance(op.inputs[0], int):
            return None
        name = _ACTIVATIONS.get(op.name) or str(op.params.get("name", "custom"))
        return Gate(op.inputs[0], value, name)

    def is_one_minus(self, value: Value, known: Value) -> bool:
        """Whether a value is 1 − known."""
        both = self.operands(value, "sub")
        number = getattr(both[0], "val", None) if len(both) == 2 and both[1] == known else None
        return number is not None and np.ndim(number) == 0 and bool(number == 1)

    def terms(self, value: Value) -> Iterator[Value]:
        """Yield what a value sums up."""
        value = self.source(value)
        if both := self.operands(value, "add"):
            for one in both:
                yield from self.terms(one)
        elif (op := self.op(value, *_MOVED)) is not None:
            yield from self.terms(op.inputs[0])
        else:
            yield value

    def ancestors(self, value: Value, stops: Collection[Value] = ()) -> Iterator[int]:
        """Yield the keys of all that a value is computed from; go no further back than `stops`."""
        waiting, seen = [value], set[int]()
        while waiting:
            value = waiting.pop()
            if isinstance(value, int) and value not in seen:
                seen.add(value)
                yield value
                op = None if value in stops else self.op(value)
                waiting += op.inputs if op is not None else ()

    def readers(self, key: Value) -> Iterator[Op]:
        """Yield the operations that read a value, past those that change nothing."""
        for op in self._program.ops:
            if key in map(self.source, op.inputs) and op.name not in _SAME:
                yield op


def recognised(body: Body) -> list[Recognised]:
    """List the known cells that a body computes, in the order of their states."""
    found: dict[int, Recognised] = {}
    for find in (_lstm, _gru, _simple):
        for one in find(body):
            if not found.keys() & set(one.states):
                found |= dict.fromkeys(one.states, one)
    return list(dict.fromkeys(found[place] for place in body.after if place in found))


def _lstm(body: Body) -> Iterator[Recognised]:
    for hidden, cell in permutations(body.after, 2):
        for kept, added in permutations(body.operands(body.after[cell], "add"), 2):
            for forget in body.other(kept, "mul", body.before[cell]):
                for squashed, out in permutations(body.operands(body.after[hidden], "mul"), 2):
                    found = body.gate(squashed)
                    if found is not None and body.source(found.before) == body.after[cell]:
                        new = body.operands(added, "mul")
                        yield _gates_of_lstm(body, (hidden, cell), forget, new, out, found.activation)


def _gates_of_lstm(
    body: Body, states: tuple[int, ...], forget: Value, new: Sequence[Value], out: Value, activation: str
) -> Recognised:
    """Tell input gate and candidate apart by the activation that the candidate shares with the output."""
    gates = {"forget": body.gate(forget), "output": body.gate(out)}
    read = [body.gate(one) for one in new]
    candidates = [one for one in read if one is not None and one.activation == activation]
    inputs = [one for one in read if one is not None and one.activation != activation]
    if len(candidates) == len(inputs) == 1:
        gates |= {"input": inputs[0], "candidate": candidates[0]}
    if len(gates) < 4 or None in gates.values():
        return Recognised("rnn", states)
    order = ("input", "forget", "candidate", "output")
    named = {name: gate for name in order if (gate := gates[name]) is not None}
    return _known("lstm", states, named, named["forget"].activation)


def _gru(body: Body) -> Iterator[Recognised]:
    for place, after in body.after.items():
        before = body.before[place]
        for first, second in permutations(body.operands(after, "add"), 2):
            # h' = (1 − z)·n + z·h
            for update in body.other(second, "mul", before):
                for rest, new in permutations(body.operands(first, "mul"), 2):
                    if body.is_one_minus(rest, update):
                        yield from _gates_of_gru(body, place, update, new)
            # h' = n + z·(h − n)
            for update, rest in permutations(body.operands(second, "mul"), 2):
                if body.operands(rest, "sub") == (before, first):
                    yield from _gates_of_gru(body, place, update, first)


def _gates_of_gru(body: Body, place: int, update: Value, new: Value) -> Iterator[Recognised]:
    gates = {"update": body.gate(update), "candidate": body.gate(new)}
    if gates["update"] is None or gates["candidate"] is None:
        return
    resets = [
        (gate, op)
        for key in body.ancestors(gates["candidate"].before, body.after.values())
        if (gate := body.gate(key)) is not None and gate.value == key
        for op in body.readers(key)
        if op.name == "mul"
    ]
    if len(resets) != 1:
        return
    reset, product = resets[0]
    is_before = any(op.name == "dot_general" for op in body.readers(product.outputs[0]))
    named = {"update": gates["update"], "reset": reset, "candidate": gates["candidate"]}
    yield _known("gru", (place,), named, reset.activation, reset_after=int(not is_before))


def _simple(body: Body) -> Iterator[Recognised]:
    """Recognise h' = activation(U·h + …)."""
    for place, after in body.after.items():
        if (gate := body.gate(after)) is not None:
            products = (body.op(term, "dot_general") for term in body.terms(gate.before))
            if any(op is not None and body.before[place] in map(body.source, op.inputs) for op in products):
                yield _known("simple_rnn", (place,), {"gate": gate})


def _known(
    kind: str, states: tuple[int, ...], gates: Mapping[str, Gate], recurrent: str = "", **flags: int
) -> Recognised:
    activation = gates["gate" if kind == "simple_rnn" else "candidate"].activation
    named = {"activation": activation, **({"recurrent_activation": recurrent} if recurrent else {})}
    return Recognised(kind, states, gates, {**named, **flags})
