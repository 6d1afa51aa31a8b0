"""Runs each step of a loop once more, all steps at once, from what the loop has found.

Each state continues as the loop has found it, so that every term counts once; products with weights are the
loop's, too. Gates, marks and their gradients follow, and a second time the gradients of inputs and weights,
which the certificate compares with those of the loop. Resets, masks and what goes back follow as well.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .loop import Loop
from .products import Product, deviation, norm_of, replaced
from .program import Op, Value, bind, evaluate
from .scan import Change, State
from .taps import Results, Seen, Taps, Zeros

_CHECKED = 3  # steps of a loop


def every_step(taps: Taps, seen: Seen, gradients: Zeros | None) -> Results:
    """Compute what lies within the steps, and with gradients transport them back through each step.

    Returns `values` of gates and marks by key; with gradients `gradients` of the same, `carried`, what each
    step hands back to the states that entered it, `weights` and `steps` for the certificate.
    """
    loop, zeros = taps.loop, taps.zeros_within()
    asked = None if gradients is None else (gradients.states, gradients.emitted)

    def every(of_scan: Any, of_step: Any) -> Any:
        known = seen.values, asked
        values, found = jax.vmap(partial(_one, taps, seen), in_axes=(None, 0, 0))(of_scan, of_step, known)
        return jnp.sum(values), found

    given = seen.consts, (seen.inputs, seen.entering, zeros)
    if gradients is None:
        return {"values": every(*given)[1][0]}
    found, (values, thin) = jax.grad(every, (0, 1), has_aux=True, allow_int=True)(*given)
    consts, (inputs, carried, tapped) = found
    weights = _pairs(consts, gradients.consts)
    of_products = _of_products(taps, thin, tapped)
    for k, one in {one.const: one for one in taps.products}.items():
        ours, theirs = (jnp.moveaxis(one.along(side, one.weight), -1, 0) for side in weights[k])
        weights[k] = sum(of_products[k], ours), theirs
    if taps.pins:
        error = _as_seen(taps, seen)
        weights = {
            k: (ours * (1 + error).astype(ours.dtype), theirs) for k, (ours, theirs) in weights.items()
        }
    return {
        "values": values,
        "gradients": tapped,
        "carried": carried,
        "weights": list(weights.values()),
        "steps": deviation(list(_pairs(inputs, gradients.inputs).values()), loop.length),
    }


def _one(taps: Taps, seen: Seen, of_scan: Any, of_step: Any, known: Any) -> Any:
    """Compute one step; return the sum whose gradients are those of the loop, and values within."""
    found: dict[Value, Array]
    consts, (inputs, carry, zeros) = of_scan, of_step
    found, asked = known
    thin: dict[Value, Array] = {}
    made: dict[Value, Array] = {}

    def change(key: int, value: Array) -> Array:
        if key in taps.sums:
            value = replaced(value, found[key])
        value = value + zeros[key] if key in zeros else value
        if key in taps.states:
            made[key] = value
            return found[key]
        return value

    def run(op: Op, values: list[Array]) -> Sequence[Array]:
        for place, name in taps.entries.get(op, ()):
            values[place] = entries[name] = values[place] + zeros[name]
        if (product := taps.known.get(op)) is None:
            return bind(op, values)
        other = 1 - product.weight
        thin[op.outputs[0]] = product.along(jax.lax.stop_gradient(values[other]), other)
        return [product.known(values, found.get(op.outputs[0]))]

    entries: dict[int, Array] = {}
    arguments = _arguments(seen, consts, carry, inputs)
    read = evaluate(taps.loop.body, arguments, change=change, run=run)
    values = {key: read(key) for key in (*(gate.value for gate in taps.gates), *taps.marks)} | entries
    if asked is None:
        return jnp.zeros(()), (values, thin)
    pairs = [(made[key], gradient) for key, gradient in asked[0].items()]
    pairs += zip(map(read, taps.loop.emitted), asked[1], strict=True)
    terms = [jnp.sum(jnp.real(value * gradient)) for value, gradient in pairs if gradient is not None]
    return sum(terms, jnp.zeros(())), (values, thin)


def _of_products(
    taps: Taps, thin: Mapping[Value, Array], back: Mapping[int, Array]
) -> dict[int, list[Array]]:
    """Sum gradients of weights along the directions; products of one sum share one pass over its gradient."""
    groups: dict[tuple[int, int, int], list[Product]] = {}
    for one in taps.products:
        group = taps.result(one), one.weight, thin[one.op.outputs[0]].ndim
        groups.setdefault(group, []).append(one)
    found: dict[int, list[Array]] = {}
    for (key, *_), each in groups.items():
        joined = jnp.concatenate([thin[one.op.outputs[0]] for one in each], -1)
        sums = jnp.split(each[0].of_weight(joined, back[key]), len(each))
        for one, own in zip(each, sums, strict=True):
            found.setdefault(one.const, []).append(own)
    return found


def _as_seen(taps: Taps, seen: Seen) -> Array:
    """Compute a few steps anew; return the largest relative error of the values that the loop went on with.

    Gradients of a loop with such values are consistent, even if it is not the program that has them.
    """
    loop = taps.loop
    some = np.unique(np.linspace(0, loop.length - 1, _CHECKED).astype(int))
    later = {k: loop.moved(one, -1) for k, one in seen.entering.items() if loop.is_floating(loop.carried[k])}
    each = seen.entering, seen.inputs, seen.values, later
    entering, inputs, values, later = jax.tree.map(lambda one: one[some], each)

    def step(now: Any) -> Any:
        entering, inputs = now
        read = evaluate(loop.body, _arguments(seen, seen.consts, entering, inputs))
        return [*map(read, values), *(read(loop.carried[k]) for k in later)]

    made = jax.lax.map(step, (entering, inputs))
    goes_on = some != (0 if loop.reverse else loop.length - 1)
    pairs = [*zip(made, values.values(), strict=False)]
    pairs += [(a[goes_on], b[goes_on]) for a, b in zip(made[len(values) :], later.values(), strict=True)]
    errors = [_error(a, b) for a, b in pairs if b.size and jnp.issubdtype(b.dtype, jnp.inexact)]
    return jnp.stack(errors).max()


def _error(made: Array, seen: Array) -> Array:
    is_same = (made == seen) | (jnp.isnan(made) & jnp.isnan(seen))
    error, size = norm_of(jnp.where(is_same, 0, made - seen)), norm_of(jnp.where(jnp.isfinite(seen), seen, 0))
    return jnp.where(error > 0, error / jnp.where(size > 0, size, 1), error).astype(jnp.float32)


def _pairs(ours: Sequence[Array], theirs: Sequence[Array | None]) -> dict[int, tuple[Array, Array]]:
    both = enumerate(zip(ours, theirs, strict=True))
    return {k: (one, other) for k, (one, other) in both if other is not None}


def _arguments(
    seen: Seen, consts: Sequence[Array], carry: Mapping[int, Array], inputs: Sequence[Array]
) -> list[Array]:
    """Give what enters a step."""
    return [*consts, *(carry.get(place, value) for place, value in enumerate(seen.initial)), *inputs]


def jacobians(loop: Loop, seen: Seen) -> Array:
    """Differentiate states by those before, (time, sample, state, state before); samples are independent."""
    shapes = [loop.body.shapes[state.key].shape for state in loop.shown]
    axes = [state.axis for state in loop.shown]
    own = [
        tuple(length for k, length in enumerate(shape) if k != axis)
        for shape, axis in zip(shapes, axes, strict=True)
    ]
    ends = np.cumsum([int(np.prod(each)) for each in own])

    def one(now: Any) -> Any:
        carry, inputs, kept = now

        def step(change: Array) -> Array:
            moved = dict(carry)
            parts = zip(loop.shown, jnp.split(change, ends[:-1]), own, kept, strict=True)
            for state, part, shape, factor in parts:
                moved[state.place] += factor * jnp.expand_dims(
                    part.reshape(shape), () if state.axis is None else state.axis
                )
            read = evaluate(loop.body, _arguments(seen, seen.consts, moved, inputs))
            after = [(read(state.key), state.axis) for state in loop.shown]
            rows = [one[None] if axis is None else jnp.moveaxis(one, axis, 0) for one, axis in after]
            return jnp.concatenate([row.reshape(len(row), -1) for row in rows], 1)

        return jax.jacfwd(step)(jnp.zeros(ends[-1], seen.values[loop.shown[0].key].dtype))

    kept = [
        loop.moved(factor, 1, jnp.ones_like(factor[:1])) for factor in map(partial(on_exit, seen), loop.shown)
    ]
    found: Array = jax.lax.map(one, (seen.entering, seen.inputs, kept))
    return found


def transitions(loop: Loop, seen: Seen, lengths: Array | None) -> dict[str, Array]:
    """Find where a state enters that the step before did not hand out, and where a step counts."""

    def gone(state: State, change: Change) -> Array:
        """Whether nothing of a sample's state stays."""
        factor = change.keeps(seen.values[change.key]) == 0
        if factor.ndim == 1 or state.axis is None:
            return factor.reshape(loop.length, -1).all(1)[:, None]
        return factor.all(tuple(axis for axis in range(1, factor.ndim) if axis != state.axis + 1))

    state = loop.shown[0]
    samples = 1 if state.axis is None else seen.values[state.key].shape[state.axis + 1]
    steps = jnp.broadcast_to(jnp.arange(loop.length)[:, None], (loop.length, samples))
    first = steps == (loop.length - 1) * loop.reverse
    never = replaced = first & False
    for state in loop.shown:
        if state.changes.on_entry is not None:
            replaced |= gone(state, state.changes.on_entry) & ~first
        if state.changes.on_exit is not None:
            replaced |= loop.moved(gone(state, state.changes.on_exit), 1)
    valid = [gone(state, state.changes.mask) for state in loop.shown if state.changes.mask is not None]
    masked = jnp.stack(valid).all(0) if len(valid) == len(loop.shown) else never
    late = never if lengths is None else steps >= lengths
    return {"reset": replaced, "valid": ~(masked | late)}


def carried(
    loop: Loop, seen: Seen, state: State, back: Mapping[int, Array], norms: Mapping[int, Array]
) -> Array:
    """Norm of what the next step hands back to each for its state: computed here, or `measured` before."""
    found = norms.get(state.place)
    if found is None or state.changes.on_exit is not None:
        found = loop.moved(back[state.place], -1) * on_exit(seen, state)
        found = norm_of(found, 0, None if state.axis is None else state.axis + 1)
    else:
        found = loop.moved(found, -1)
    return found[:, None] if state.axis is None else found


def on_exit(seen: Seen, state: State) -> Array:
    """Give what a state is multiplied by between the step that made it and the next; 1 without a reset."""
    change, values = state.changes.on_exit, seen.values[state.key]
    if change is None:
        return jnp.ones((len(values), *(1,) * (values.ndim - 1)), values.dtype)
    factor = change.keeps(seen.values[change.key]).astype(values.dtype)
    return factor.reshape(*factor.shape, *(1,) * (values.ndim - factor.ndim))
