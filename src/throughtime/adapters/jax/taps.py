"""Runs a program with zeros on the states of its loops.

The gradient with respect to a zero added to a state is the state's total derivative.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from .loop import Loop
from .products import Product, norm_of, products, replaced, sums
from .program import Op, Program, Value, bind, evaluate, is_cheap
from .samples import tree_map
from .scan import State


class Zeros(NamedTuple):
    """Zeros that are added to one scan, or its gradients at them; None where there is no gradient."""

    consts: list[Array | None]
    initial: list[Array | None]
    inputs: list[Array | None]
    states: dict[Value, Array | None]  # by their keys
    emitted: list[Array | None]
    final: list[Array | None]
    inner: list[Zeros]  # of scans in the body, at each step, but for shared constants
    norms: dict[int, Array]  # of what a step hands back, (time, …) by the places of states; see `measured`


class Seen(NamedTuple):
    """Inputs and results of a scan: values as the program has them, (time, …) where they have a step.

    `values` has states, products and decisions by their keys, `entering` changing carries before a step.
    """

    consts: list[Array]
    initial: list[Array]
    inputs: list[Array]
    values: dict[Value, Array]
    entering: dict[int, Array]
    emitted: list[Array]
    inner: list[Seen]  # as in `Zeros`
    lengths: Array | None = None  # steps of each sample that count, where the program has them


Results = dict[str, Any]  # of a layer, or of the whole program, by what they are
OfSeen = Callable[[Seen, Zeros | None], dict[int, Results]]
Taken = TypeVar("Taken", Zeros, Seen)


class Taps:
    """Zeros added to a scan and those in its body; values kept of it, more if its steps run once more."""

    def __init__(self, loop: Loop, *, runs_again: bool) -> None:
        self.loop, self.layers = loop, loop.parts_of_scan
        self.inner: list[Taps] = []  # of scans in the body
        self.products = products(loop) if runs_again else []
        self.sums = sums(loop, self.products)
        self.known = {one.op: one for one in self.products}
        self.states = {state.key for state in loop.states}

        self.gates = [gate for one in self.layers for gate in one.gates.values()]
        self.marks = [key for one in self.layers for key in one.marks.values()]

    def zeros_within(self) -> dict[int, Array | None]:
        """Make zeros for gates, marks, products, and what cells get from others, when steps run once more."""
        within = *(gate.before for gate in self.gates), *self.marks, *map(self.result, self.products)
        keys: dict[int, Value] = {key: key for key in within}
        keys |= {one.entry: one.below.key for one in self.layers if one.below is not None}
        return {name: self._zeros(key, self.loop.length) for name, key in keys.items()}

    @cached_property
    def entries(self) -> dict[Op, list[tuple[int, int]]]:
        """Where cells read other cells: by operation the place of the operand, and the name of the zero."""
        found: dict[Op, list[tuple[int, int]]] = {}
        for op, place, name in ((*each, one.entry) for one in self.layers for each in one.readers):
            found.setdefault(op, []).append((place, name))
        return found

    def result(self, product: Product) -> int:
        """Return the key of a product, or of the sum that it is kept in."""
        return next((k for k, each in self.sums.items() if product.op in each), product.op.outputs[0])

    @cached_property
    def _kept(self) -> list[Value]:
        summed = {op for each in self.sums.values() for op in each}
        keys: list[Value] = [*self.sums, *(op.outputs[0] for op in self.known if op not in summed)]
        for state in self.loop.states:
            changes = state.changes
            each = (changes.on_entry, changes.on_exit, changes.mask)
            keys += [state.key, *(one.key for one in each if one is not None)]
            keys += [changes.entered] if changes.on_entry is not None else []
        return list(dict.fromkeys(keys))

    def zeros(self) -> Zeros:
        """Make what is added, with an axis of steps if an outer loop has the scan in its body."""
        loop, outer, zeros = self.loop, self.loop.outer, self._zeros
        consts, initial, inputs = loop.parts(loop.body.inputs)
        found = Zeros(
            [zeros(key) for key in consts],
            [zeros(key) for key in initial],
            [zeros(key, loop.length) for key in inputs],
            {key: zeros(key, loop.length) for key in self.states},
            [zeros(key, loop.length) for key in loop.emitted],
            [zeros(key) for key in loop.carried],
            [one.zeros() for one in self.inner],
            {state.place: self._norms(state) for state in loop.shown if self.pins},
        )
        if outer is None:
            return found
        each = tree_map(lambda one: jnp.zeros((outer.length, *one.shape), one.dtype), found)
        return self.shared(found.consts, each)

    def _zeros(self, key: Value, *steps: int) -> Array | None:
        shape = self.loop.body.shape_of(key)
        return jnp.zeros((*steps, *shape.shape), shape.dtype) if self.loop.is_floating(key) else None

    def _norms(self, state: State) -> Array:
        shape = self.loop.body.shape_of(state.key)
        own = () if state.axis is None else (shape.shape[state.axis],)
        return jnp.abs(jnp.zeros((self.loop.length, *own), shape.dtype))

    @cached_property
    def places(self) -> list[int | None]:
        """Where the outer loop has each constant that no step of it changes; None for others."""
        outer = self.loop.outer
        known = [] if outer is None else list(outer.parts(outer.body.inputs)[0])
        return [known.index(key) if key in known else None for key in self.loop.parts(self.loop.op.inputs)[0]]

    def shared(self, consts: Sequence[Array | None] | None, own: Taken) -> Taken:
        """Put in the constants that no step of the outer loop changes, or None."""
        both = zip(self.places, consts or [None] * len(own.consts), own.consts, strict=True)
        chosen: list[Any] = [mine if place is None else one for place, one, mine in both]
        return own._replace(consts=chosen)

    def of_outer_steps(self, function: OfSeen, seen: Seen, back: Zeros | None) -> dict[int, Results]:
        """Call a function of what was seen, for all steps of the outer loop at once."""
        assert self.loop.outer is not None
        steps = self.loop.outer.length
        # The gradient of what is shared is a sum over outer steps, as `weights` is.
        parts = None if back is None else [one if one is None else one / steps for one in back.consts]

        def each(own: Seen, of_own: Zeros | None) -> dict[int, Results]:
            own = self.shared(seen.consts, own)
            return function(own, None if of_own is None else self.shared(parts, of_own))

        found = jax.vmap(each)(self.shared(None, seen), None if back is None else self.shared(None, back))
        for one in found.values():
            one["weights"] = jax.tree.map(lambda each: each.sum(0), one.get("weights", []))
        return found

    def run(self, given: list[Array], zeros: Zeros) -> tuple[list[Array], Seen]:
        """Run the scan with zeros added; return its results, and what was seen of it."""
        loop = self.loop
        consts, initial, inputs = map(_added, loop.parts(given), zeros[:3])
        if not self.pins:
            final, seen = self._run(consts, initial, inputs, zeros)
        else:
            own = tree_map(jax.lax.stop_gradient, (consts, initial, inputs))
            final, seen = self._run(*own, zeros._replace(states={}))
            last, made = self._again(seen, (consts, initial, inputs), zeros)
            made, final = list(map(_pinned, made, seen.emitted)), list(map(_pinned, last, final))
            seen = seen._replace(consts=consts, initial=initial, inputs=inputs, emitted=made)
        seen = seen._replace(emitted=_added(seen.emitted, zeros.emitted))
        return [*_added(final, zeros.final), *seen.emitted], seen

    @cached_property
    def pins(self) -> bool:
        """Whether a step costs little once states and products are known."""
        ops = [op for op in self.loop.body.ops if op not in self.known]
        return bool(self.known) and all(map(is_cheap, ops))

    def _again(self, seen: Seen, given: Any, zeros: Zeros) -> tuple[Any, Any]:
        """Run the scan with zeros on its states, and with the values seen in the first run.

        Only its derivative takes time: the first run has kept all that the derivative needs.
        """
        loop, (consts, initial, inputs) = self.loop, given
        axes = {state.place: state.axis for state in loop.shown}

        def step(carry: Any, now: Any) -> tuple[Any, Any]:
            x, states, norms, values, entering = now
            carry = [_pinned(one, entering.get(k, seen.initial[k])) for k, one in enumerate(carry)]
            for k, norm in norms.items():
                carry[k] = measured(carry[k], norm, axes[k])

            def change(key: int, value: Array) -> Array:
                value = _pinned(value, values[key]) if key in values else value
                return value if (zero := states.get(key)) is None else value + zero

            read = evaluate(loop.body, [*consts, *carry, *x], change=change)
            return [read(key) for key in loop.carried], [read(key) for key in loop.emitted]

        found: tuple[Any, Any] = jax.lax.scan(
            jax.checkpoint(step, prevent_cse=False, policy=jax.checkpoint_policies.nothing_saveable),
            initial,
            (inputs, zeros.states, zeros.norms, seen.values, seen.entering),
            length=loop.length,
            reverse=loop.reverse,
            unroll=loop.op.params.get("unroll", 1),
        )
        return found

    def _run(self, consts: Any, initial: Any, inputs: Any, zeros: Zeros) -> tuple[list[Array], Seen]:
        """Run the scan with zeros on its states, and keep what was seen."""
        loop, emitted = self.loop, self.loop.emitted
        moved = {state.place: state.key for state in loop.states if state.carry == state.key}

        def step(carry: Any, now: Any) -> tuple[Any, Any]:
            x, states, of_step = now
            both = zip(self.inner, zeros.inner, of_step, strict=True)
            inner = [one.shared(whole.consts, own) for one, whole, own in both]
            read, seen = run(loop.body, [*consts, *carry, *x], self.inner, inner, states)
            values = (
                {key: read(key) for key in self._kept},
                {k: carry[k] for k in loop.changing if k not in moved},
            )
            rest = [None if key in self._kept else read(key) for key in emitted]
            return [read(key) for key in loop.carried], (*values, rest, self._apart(seen))

        if (remat := loop.body.checkpoint) is not None:  # keep as little of a step as the caller's own does
            step = jax.checkpoint(step, policy=remat.get("policy"), prevent_cse=False)
        final, (values, entering, rest, within) = jax.lax.scan(
            step,
            initial,
            (inputs, zeros.states, self._apart(zeros.inner)),
            length=loop.length,
            reverse=loop.reverse,
            unroll=loop.op.params.get("unroll", 1),
        )
        made = [values[key] if one is None else one for key, one in zip(emitted, rest, strict=True)]
        entering |= {k: loop.moved(values[key], 1, initial[k][None]) for k, key in moved.items()}
        for number, one in enumerate(self.inner):
            places = one.places
            within[number] = one.shared([None if k is None else consts[k] for k in places], within[number])
        seen = Seen(consts, initial, inputs, values, entering, made, within)
        return final, seen

    def _apart(self, of_inner: Sequence[Taken]) -> list[Taken]:
        return [one.shared(None, each) for one, each in zip(self.inner, of_inner, strict=True)]


def run(
    program: Program,
    arguments: Sequence[Array],
    taps: Sequence[Taps],
    zeros: Sequence[Zeros],
    added: Mapping[Value, Array | None],
    consts: Mapping[int, Array] | None = None,
) -> tuple[Callable[[Value], Array], list[Seen]]:
    """Compute a program with zeros added to scans and, by key, values; return a reader, and what was seen."""
    numbers = {each.loop.op: number for number, each in enumerate(taps)}
    seen: dict[int, Seen] = {}

    def step(op: Op, values: list[Array]) -> Sequence[Array]:
        if (number := numbers.get(op)) is None:
            return bind(op, values)
        results, seen[number] = taps[number].run(values, zeros[number])
        return results

    def change(key: int, value: Array) -> Array:
        zero = added.get(key)
        return value if zero is None else value + zero

    read = evaluate(program, arguments, run=step, consts=consts, change=change)
    lengths = [each.loop.lengths for each in taps]
    return read, [
        seen[number]._replace(lengths=None if key is None else read(key))
        for number, key in enumerate(lengths)
    ]


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def measured(value: Array, norm: Array, axis: int | None) -> Array:
    """Return a value; the gradient of `norm` is the norm of the value's gradient, per sample along `axis`."""
    del norm, axis
    return value


def _of_measured(axis: int | None, _: None, back: Array) -> tuple[Array, Array]:
    return back, norm_of(back, axis)


measured.defvjp(lambda value, norm, axis: (measured(value, norm, axis), None), _of_measured)


def _pinned(made: Array, found: Array) -> Array:
    """Continue with the value that was found; the gradient is that of the value made."""
    return replaced(made, found) if jnp.issubdtype(found.dtype, jnp.inexact) else found


def _added(values: Sequence[Array], zeros: Sequence[Array | None]) -> list[Array]:
    return [value if zero is None else value + zero for value, zero in zip(values, zeros, strict=True)]
