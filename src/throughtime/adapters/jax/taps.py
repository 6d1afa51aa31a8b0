"""Runs a program with zeros on the states of its loops.

The gradient with respect to a zero added to a state is the state's total derivative.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypedDict, cast

import jax
import jax.numpy as jnp
from jax import Array

from .loop import Loop
from .products import products
from .program import Op, Program, Value, bind, evaluate
from .samples import T, tree_map


class Zeros(TypedDict):
    """Zeros that are added to one scan, or its gradients at them; None where there is no gradient."""

    consts: list[Array | None]
    initial: list[Array | None]
    inputs: list[Array | None]
    states: dict[int, Array | None]
    emitted: list[Array | None]
    final: list[Array | None]


class Seen(NamedTuple):
    """Inputs and results of a scan: values as the program has them, (time, …) where they have a step.

    `values` has states, products and decisions by their keys, `entering` the carries that are no states.
    """

    consts: list[Array]
    initial: list[Array]
    inputs: list[Array]
    values: dict[Value, Array]
    entering: dict[int, Array]
    emitted: list[Array]


Results = dict[str, Any]  # of a layer, or of the whole program, by what they are
OfSeen = Callable[[Seen, Zeros | None], list[Results]]


class Taps:
    """Zeros added to the scan of a layer, and values kept of it, more if its steps run once more."""

    def __init__(self, loop: Loop, *, runs_again: bool) -> None:
        self.loop, self.layers = loop, loop.parts_of_scan
        self.products = products(loop) if runs_again else []
        self.known = {one.op: one for one in self.products}
        self.keys: dict[Value, int] = {state.key: state.place for state in loop.states}

        self.gates = [gate for one in self.layers for gate in one.gates.values()]
        self.marks = [key for one in self.layers for key in one.marks.values()]

    def zeros_within(self) -> dict[int, Array | None]:
        """Make zeros for gates, marks, and what cells are given by others, when steps run once more."""
        keys: dict[int, Value] = {key: key for key in (*(gate.before for gate in self.gates), *self.marks)}
        keys |= {one.entry: one.below.key for one in self.layers if one.below is not None}
        return {name: self._zeros(key, self.loop.length) for name, key in keys.items()}

    @cached_property
    def entries(self) -> dict[Op, list[tuple[int, int]]]:
        """Where cells read other cells: by operation the place of the operand, and the name of the zero."""
        found: dict[Op, list[tuple[int, int]]] = {}
        for op, place, name in ((*each, one.entry) for one in self.layers for each in one.readers):
            found.setdefault(op, []).append((place, name))
        return found

    @cached_property
    def _kept(self) -> list[Value]:
        keys: list[Value] = [op.outputs[0] for op in self.known]
        for state in self.loop.states:
            changes = state.changes
            each = (changes.on_entry, changes.on_exit, changes.mask)
            keys += [state.key, state.carry, *(one.key for one in each if one is not None)]
            keys += [changes.entered] if changes.on_entry is not None else []
        return list(dict.fromkeys(keys))

    def zeros(self) -> Zeros:
        """Make what is added."""
        consts, initial, inputs = self.loop.parts(self.loop.body.inputs)
        found: Zeros = {
            "consts": [self._zeros(key) for key in consts],
            "initial": [self._zeros(key) for key in initial],
            "inputs": [self._zeros(key, self.loop.length) for key in inputs],
            "states": {place: self._zeros(key, self.loop.length) for key, place in self.keys.items()},
            "emitted": [self._zeros(key, self.loop.length) for key in self.loop.emitted],
            "final": [self._zeros(key) for key in self.loop.carried],
        }
        outer = self.loop.outer
        if outer is None:
            return found
        each = tree_map(lambda one: jnp.zeros((outer.length, *one.shape), one.dtype), found)
        return {**each, "consts": self.choose(found["consts"], each["consts"])}

    @cached_property
    def shared(self) -> list[int | None]:
        """Where the outer loop has each constant, which no step of it changes; None for others."""
        if self.loop.outer is None:
            return []
        known = list(self.loop.outer.parts(self.loop.outer.body.inputs)[0])
        return [known.index(key) if key in known else None for key in self.loop.parts(self.loop.op.inputs)[0]]

    def choose(self, shared: Sequence[T] | None, own: Sequence[T]) -> list[T]:
        """Take shared constants from one list, by default None, and others from the other."""
        both = zip(self.shared, shared or cast("list[T]", [None] * len(own)), own, strict=True)
        return [mine if place is None else one for place, one, mine in both]

    def of_outer_steps(self, function: OfSeen, seen: Seen, back: Zeros | None) -> list[Results]:
        """Call a function of what was seen: if there is an outer loop, for all of its steps at once."""
        if self.loop.outer is None:
            return function(seen, back)
        steps, axes = self.loop.outer.length, [0 if place is None else None for place in self.shared]
        of_back = None
        if back is not None:
            # The gradient of what is shared is a sum over outer steps, as `weights` is.
            parts = [one if one is None else one / steps for one in back["consts"]]
            back = {**back, "consts": self.choose(parts, back["consts"])}
            of_back = {**dict.fromkeys(back, 0), "consts": axes}
        of_seen = Seen(*cast("Iterable[Any]", (axes, 0, 0, 0, 0, 0)))  # axes, as vmap takes them
        found = jax.vmap(function, (of_seen, of_back), axis_size=steps)(seen, back)
        for one in found:
            one["weights"] = jax.tree.map(lambda each: each.sum(0), one.get("weights", []))
        return found

    def _zeros(self, key: Value, *steps: int) -> Array | None:
        shape = self.loop.body.shape_of(key)
        return jnp.zeros((*steps, *shape.shape), shape.dtype) if self.loop.is_floating(key) else None

    def run(
        self, given: list[Array], zeros: Zeros, inner: Sequence[tuple[Taps, Zeros]] = ()
    ) -> tuple[list[Array], Seen, list[Seen]]:
        """Run the scan with zeros added; return its results, and what was seen of it and of inner scans."""
        loop = self.loop
        of_given = zeros["consts"], zeros["initial"], zeros["inputs"]
        consts, initial, inputs = map(_added, loop.parts(given), of_given)
        others = [k for k in loop.changing if k not in self.keys.values()]

        def step(carry: Any, now: Any) -> tuple[Any, Any]:
            x, taps, of_step = now
            within: list[Seen] = []

            def change(key: int, value: Array) -> Array:
                return value + taps[self.keys[key]] if key in self.keys else value

            read = evaluate(
                loop.body, [*consts, *carry, *x], change=change, run=_running(inner, of_step, within)
            )
            seen = {key: read(key) for key in self._kept}, {k: carry[k] for k in others}
            emitted = [read(key) for key in loop.emitted]
            return [read(key) for key in loop.carried], (emitted, *seen, within)

        if (remat := loop.body.checkpoint) is not None:  # keep as little of a step as the caller's own does
            step = jax.checkpoint(step, policy=remat.get("policy"), prevent_cse=False)
        of_steps = [{**own, "consts": one.choose(None, own["consts"])} for one, own in inner]
        final, (emitted, values, entering, within) = jax.lax.scan(
            step,
            list(initial),
            (list(inputs), zeros["states"], of_steps),
            length=loop.length,
            reverse=loop.reverse,
            unroll=loop.op.params.get("unroll", 1),
        )
        emitted = _added(emitted, zeros["emitted"])
        results = [*_added(final, zeros["final"]), *emitted]
        for number, (one, _) in enumerate(inner):
            shared = [None if place is None else consts[place] for place in one.shared]
            within[number] = within[number]._replace(consts=one.choose(shared, within[number].consts))
        return results, Seen(list(consts), list(initial), list(inputs), values, entering, emitted), within


def run(
    program: Program,
    consts: Mapping[int, Array],
    arguments: Sequence[Array],
    taps: Sequence[Taps],
    zeros: tuple[Sequence[Zeros], Mapping[int, Array]],
) -> tuple[Callable[[Value], Array], list[Seen]]:
    """Compute a program with zeros added to scans and, by key, values; return a reader, and what was seen."""
    of_scans, of_values = zeros
    numbers = {each.loop.op: number for number, each in enumerate(taps)}
    outer = [each.loop.outer and each.loop.outer.op for each in taps]
    seen: dict[int, Seen] = {}

    def step(op: Op, values: list[Array]) -> Sequence[Array]:
        if op not in numbers:
            return bind(op, values)
        number, within = numbers[op], [k for k, one in enumerate(outer) if one is op]
        within.sort(key=lambda k: taps[number].loop.body.ops.index(taps[k].loop.op))
        inner = [(taps[k], of_scans[k]) for k in within]
        results, seen[number], found = taps[number].run(values, of_scans[number], inner)
        seen.update(zip(within, found, strict=True))
        return results

    def change(key: int, value: Array) -> Array:
        return value + of_values[key] if key in of_values else value

    read = evaluate(program, arguments, run=step, consts=consts, change=change)
    return read, [seen[number] for number in range(len(taps))]


def _running(
    inner: Sequence[tuple[Taps, Zeros]], of_step: Sequence[Zeros], within: list[Seen]
) -> Callable[[Op, list[Array]], Sequence[Array]]:
    """Run inner scans with their zeros of one outer step; `within` gets what is seen of each."""

    def run(op: Op, values: list[Array]) -> Sequence[Array]:
        for (one, zeros), own in zip(inner, of_step, strict=True):
            if one.loop.op is op:
                added: Zeros = {**own, "consts": one.choose(zeros["consts"], own["consts"])}
                results, seen, _ = one.run(values, added)
                within.append(seen._replace(consts=one.choose(None, seen.consts)))
                return results
        return bind(op, values)

    return run


def _added(values: Sequence[Array], zeros: Sequence[Array | None]) -> list[Array]:
    return [value if zero is None else value + zero for value, zero in zip(values, zeros, strict=True)]
