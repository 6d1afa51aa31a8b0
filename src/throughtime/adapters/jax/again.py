"""Runs each step of a loop once more, all steps at once, from what the loop has found.

Each state goes on as the loop has found it, so that every term counts once; products with weights are taken
from the loop as well. Gates, marks and their gradients follow, and a second time the gradients of inputs and
weights, which the certificate compares with those of the loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .loop import Loop
from .products import Product, deviation, known
from .program import Op, bind, evaluate
from .scan import State
from .taps import Seen, Taps, Zeros


def again(taps: Taps, seen: Seen, gradients: Zeros | None) -> dict[str, Any]:
    """Compute what lies within the steps, and with gradients transport them back through each step.

    Parameters
    ----------
    gradients : dict or None
        Of the zeros that `Taps.zeros` made.

    Returns
    -------
    dict
        `values` of gates and marks by key; with gradients `gradients` of the same, `carried`, what each step
        hands back to the states that entered it, `weights` and `steps` for the certificate.
    """
    loop = taps.loop
    floats, fixed = _parted(seen.consts)
    series, whole = _parted(seen.inputs)
    asked = None if gradients is None else (gradients["states"], gradients["emitted"])
    marked = series, [_before(loop, seen, state) for state in loop.states], taps.zeros_within()

    def one(consts: Any, marked: Any, fixed_of_step: Any) -> Any:
        (series, before, zeros), (whole, entering, found, asked) = marked, fixed_of_step
        arguments = _arguments(loop, seen, _together(consts, fixed), before, entering)
        step = _Step(taps, zeros, found)
        read = evaluate(loop.body, [*arguments, *_together(series, whole)], change=step.change, run=step.run)
        values = {key: read(key) for key in taps.read_within} | step.entries
        if asked is None:
            return jnp.zeros(()), (values, step.along)
        made = [step.made[state.key] for state in loop.states], [read(key) for key in loop.emitted]
        pairs = zip([*made[0], *made[1]], [*asked[0], *asked[1]], strict=True)
        terms = [jnp.sum(value * gradient) for value, gradient in pairs if gradient is not None]
        return sum(terms, jnp.zeros(())), (values, step.along)

    def every(consts: Any, marked: Any) -> Any:
        of_steps = whole, seen.entering, seen.values, asked
        values, found = jax.vmap(one, in_axes=(None, 0, 0))(consts, marked, of_steps)
        return jnp.sum(values), found

    if gradients is None:
        return {"values": every(floats, marked)[1][0]}
    (consts, (inputs, carried, tapped)), (values, along) = jax.grad(every, (0, 1), has_aux=True)(
        floats, marked
    )
    check = _Check(taps.products, along, tapped, seen.consts)
    pairs = [*check.inputs(inputs, gradients["inputs"])]
    return {
        "values": values,
        "gradients": tapped,
        "carried": carried,
        "weights": check.weights(consts, gradients["consts"]),
        "steps": deviation(pairs, loop.length),
    }


class _Step:
    """What is put in the place of a step's values; one instance a trace."""

    def __init__(self, taps: Taps, zeros: dict[int, Any], found: dict[int, Any]) -> None:
        self._taps, self._zeros, self._found = taps, zeros, found
        self._states = {state.key for state in taps.loop.states}
        self._products = {one.op: one for one in taps.products}
        self.made: dict[int, Any] = {}
        self.entries: dict[int, Any] = {}
        self.along: dict[int, Any] = {}

    def change(self, key: int, value: Any) -> Any:
        """Keep a state that was made, and go on with the one that was found."""
        if key in self._states:
            self.made[key] = value
            return self._found[key]
        return value + self._zeros[key] if key in self._zeros else value

    def run(self, op: Op, values: list[Any]) -> Sequence[Any]:
        """Compute an operation; a product is known."""
        for place, name in self._taps.entries.get(op, ()):
            values[place] = self.entries[name] = values[place] + self._zeros[name]
        product = self._products.get(op)
        if product is None:
            return bind(op, values)
        self.along[product.key] = product.along(values[product.other], product.other)
        values[product.weight] = jax.lax.stop_gradient(values[product.weight])
        if product.input is not None:
            values[product.other] = jax.lax.stop_gradient(values[product.other])
        return [known(bind(op, values)[0], self._found[product.key])]


class _Check:
    """Adds to the gradients of a step's other operations those of its products, along one direction."""

    def __init__(self, products: Sequence[Product], along: Any, back: Any, consts: Sequence[Any]) -> None:
        self._products, self._along, self._back, self._consts = products, along, back, consts

    def weights(self, ours: Sequence[Any], theirs: Sequence[Any]) -> list[tuple[Any, Any]]:
        pairs = []
        for place, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            own = [each for each in self._products if each.const == place]
            if other is not None and own:
                found = [each.of_weight(self._along[each.key], self._back[each.key]) for each in own]
                pairs.append(
                    (sum(found, own[0].along(one, own[0].weight)), own[0].along(other, own[0].weight))
                )
            elif other is not None:
                pairs.append((one, other))
        return pairs

    def inputs(self, ours: Sequence[Any], theirs: Sequence[Any]) -> list[tuple[Any, Any]]:
        pairs = []
        for place, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            own = [each for each in self._products if each.input == place]
            if other is not None and own:
                found = [each.of_input(self._consts[each.const], self._back[each.key]) for each in own]
                sides = (own[0].along(side, own[0].other, 1) for side in (one, other))
                pairs.append((sum(found, next(sides)), next(sides)))
            elif other is not None:
                pairs.append((one, other))
        return pairs


def _arguments(loop: Loop, seen: Seen, consts: Any, before: Any, entering: Any) -> list[Any]:
    """Give what enters a step, but for what has a step each."""
    carry = list(seen.initial)
    for state, value in zip(loop.states, before, strict=True):
        carry[state.place] = value
    for place, value in entering.items():
        carry[place] = value
    return [*consts, *carry]


def _before(loop: Loop, seen: Seen, state: State) -> Any:
    """Put each step's entering state in its place."""
    first, after = seen.initial[state.place][None], seen.values[state.carry]
    return jnp.concatenate([after[1:], first] if loop.reverse else [first, after[:-1]])


def before(loop: Loop, seen: Seen, state: State) -> Any:
    """Give the state that each step computes with: where it was reset, the one in its place."""
    entered = state.changes.entered
    return seen.values[entered] if entered in seen.values else _before(loop, seen, state)


def _parted(values: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Part floating values from the others, with None in the place of each."""
    is_float = [jnp.issubdtype(jnp.result_type(value), jnp.inexact) for value in values]
    floats = [value if each else None for value, each in zip(values, is_float, strict=True)]
    others = [None if each else value for value, each in zip(values, is_float, strict=True)]
    return floats, others


def _together(floats: Sequence[Any], others: Sequence[Any]) -> list[Any]:
    return [one if other is None else other for one, other in zip(floats, others, strict=True)]


def jacobians(loop: Loop, seen: Seen) -> Any:
    """Differentiate a layer's states after each step by those before it, (time, state before, sample, state).

    Samples are taken to be independent of each other: one tangent serves all.
    """
    states = loop.shown
    tangents = _basis(states, [loop.body.shapes[state.key] for state in states])

    def one(now: Any) -> Any:
        before, others, inputs, entering = now

        def step(before: Any) -> Any:
            arguments = _arguments(loop, seen, seen.consts, [*before, *others], entering)
            read = evaluate(loop.body, [*arguments, *inputs])
            return [read(state.key) for state in states]

        columns = jax.vmap(lambda tangent: jax.jvp(step, (before,), (tangent,))[1])(tangents)
        return jnp.concatenate([_rows(each, one.axis) for each, one in zip(columns, states, strict=True)], -1)

    before = [_before(loop, seen, state) for state in loop.states]
    shown = len(states)
    return jax.lax.map(one, (before[:shown], before[shown:], seen.inputs, seen.entering))


def _basis(states: Sequence[State], shapes: Sequence[Any]) -> list[Any]:
    """Make the tangents, one for each element of the state of a sample."""
    own = [
        [length for axis, length in enumerate(shape.shape) if axis != state.axis]
        for state, shape in zip(states, shapes, strict=True)
    ]
    ends = np.cumsum([int(np.prod(each)) for each in own])
    found = []
    for state, shape, each, end in zip(states, shapes, own, ends, strict=True):
        rows = np.eye(int(ends[-1]), dtype=shape.dtype)[:, end - int(np.prod(each)) : end].reshape(-1, *each)
        rows = rows if state.axis is None else np.expand_dims(rows, state.axis + 1)
        found.append(jnp.broadcast_to(rows, (len(rows), *shape.shape)))
    return found


def _rows(column: Any, axis: int | None) -> Any:
    """(tangent, …) to (tangent, sample, element)."""
    moved = column[:, None] if axis is None else jnp.moveaxis(column, axis + 1, 1)
    return moved.reshape(*moved.shape[:2], -1)
