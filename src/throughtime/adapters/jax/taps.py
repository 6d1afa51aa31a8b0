"""Runs a program with zeros on the states of its loops, and keeps products of a step with weights.

The gradient with respect to a zero added to a state is the state's total derivative. The gradients of weights
and inputs are compared along a few random directions R, which takes thin products alone: R·dW is the sum of
(R·x_t) dz_t over all steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypedDict, TypeVar, cast

import jax
import jax.numpy as jnp
from jax import Array

from throughtime.cells import directions

from .loop import Loop
from .models import tree_map
from .program import Op, Program, Value, bind, evaluate
from .scan import Scan

Pairs = list[tuple[Array, Array]]
T = TypeVar("T")


@dataclass(frozen=True)
class Product:
    """One `dot_general`: the places of the weight and of the other factor among its inputs and the scan's."""

    op: Op
    weight: int
    const: int
    input: int | None

    def axes(self, place: int) -> tuple[int, ...]:
        """Axes of a factor that are summed over."""
        return tuple(self.op.params["dimension_numbers"][0][place])

    def along(self, factor: Array, place: int, before: int = 0) -> Array:
        """Sum a factor, or its gradient, along the directions; `before` counts axes in front of its own."""
        axes = tuple(axis + before for axis in self.axes(place))
        drawn = jnp.asarray(directions(*(factor.shape[axis] for axis in axes)), factor.dtype)
        return jnp.tensordot(factor, drawn, (axes, tuple(range(len(axes)))))

    def outer(self, of_weight: Array, of_other: Array) -> Array:
        """Join what is left of both factors as the product does, and sum over the directions."""
        both = (of_weight, of_other) if self.weight == 0 else (of_other, of_weight)
        return jnp.tensordot(*both, axes=(-1, -1))

    def known(self, values: list[Array], found: Array, of_weight: Array, of_input: Array | None) -> Array:
        """Go on with the product as found before; zeros along directions are added to weight and input."""
        weight, other = values[self.weight], values[1 - self.weight]
        still = jax.lax.stop_gradient(other)
        parts = [still if self.input is not None else other, jax.lax.stop_gradient(weight)]
        made = bind(self.op, parts if self.weight else parts[::-1])[0]
        product = _replaced(made, found) + self.outer(of_weight, self.along(still, 1 - self.weight))
        return (
            product if of_input is None else product + self.outer(self.along(parts[1], self.weight), of_input)
        )


def products(scan: Scan) -> list[Product]:
    """List the products of a step with the scan's constants."""
    consts, _, inputs = scan.parts(list[Value](scan.body.inputs))
    found: list[Product] = []
    axes: dict[tuple[int, int], tuple[int, ...]] = {}
    for op in scan.body.ops:
        places = [place for place, key in enumerate(op.inputs) if key in consts]
        if op.name == "dot_general" and len(places) == 1 and not any(op.params["dimension_numbers"][1]):
            weight, other = (op.inputs[place] for place in (places[0], 1 - places[0]))
            of_input = inputs.index(other) if other in inputs else None
            one = Product(op, places[0], consts.index(weight), of_input)
            # What several products use is summed over the same axes in all of them.
            same = axes.setdefault((0, one.const), one.axes(one.weight)) == one.axes(one.weight)
            if of_input is not None:
                same &= axes.setdefault((1, of_input), one.axes(1 - one.weight)) == one.axes(1 - one.weight)
            found += [one] if same else []
    return found


@jax.custom_vjp
def _replaced(made: Array, found: Array) -> Array:
    """Go on with what was found before; the gradient is that of what was made."""
    del made
    return found


_replaced.defvjp(
    lambda made, found: (_replaced(made, found), None),
    lambda _, gradient: (gradient, jnp.zeros_like(gradient)),
)


def deviation(pairs: Pairs, steps: int) -> Array | None:
    """Norms at each step of the loop's gradients, and of ours minus those, (time, 2); None without any."""
    if not pairs:
        return None
    largest = jnp.stack([jnp.max(jnp.abs(theirs)) for _, theirs in pairs]).max()
    scale = jnp.where(largest > 0, largest, 1)

    def norms(values: Sequence[Array]) -> Array:
        each = (jnp.square((one / scale).reshape(steps, -1)).sum(1) for one in values)
        return jnp.sqrt(sum(each)) * scale

    return jnp.stack([norms([theirs for _, theirs in pairs]), norms([a - b for a, b in pairs])], 1)


class Zeros(TypedDict):
    """Zeros that are added to one scan, or its gradients at them; None where there is no gradient."""

    consts: list[Array | None]
    initial: list[Array | None]
    inputs: list[Array | None]
    states: dict[int, Array | None]
    emitted: list[Array | None]
    final: list[Array | None]


class Seen(NamedTuple):
    """What a scan was given and left: values as the program has them, (time, …) where they have a step.

    `values` has states, products and decisions by their keys, `entering` the carries that are no states.
    """

    consts: list[Array]
    initial: list[Array]
    inputs: list[Array]
    values: dict[Value, Array]
    entering: dict[int, Array]
    emitted: list[Array]


OfSeen = Callable[[Seen, Zeros | None], list[dict[str, Any]]]


class Taps:
    """What is added to the scan of a layer, and what is kept of it, more if its steps run once more."""

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

    def of_outer_steps(self, function: OfSeen, seen: Seen, back: Zeros | None) -> list[dict[str, Any]]:
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
