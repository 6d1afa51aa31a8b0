"""Runs a program with zeros on the states of its loops, and each loop's steps once more, all at once.

The gradient with respect to a zero added to a state is the state's total derivative. One step, run on all
steps as if they were samples from the states that the loop has found, gives gates, marks and what each step
hands back; the gradients of inputs and weights are found a second time, for the certificate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .loop import Loop
from .program import Op, Program, bind, evaluate

_AT_ONCE = 16  # steps
Zeros = dict[str, list[Any]]  # of one loop, each list with None where there is no gradient


@dataclass(frozen=True)
class Seen:
    """What a loop was given and left: values as the program has them, (time, …) where they have a step."""

    consts: list[Any]
    initial: list[Any]
    inputs: list[Any]
    states: list[Any]
    entering: dict[int, Any]
    emitted: list[Any]

    def as_dict(self) -> dict[str, Any]:
        """Give them as a structure that JAX can trace."""
        return dict(vars(self))


def run(
    program: Program, consts: dict[int, Any], arguments: Sequence[Any], loops: Mapping[Op, Loop], zeros: Any
) -> tuple[Any, dict[int, dict[str, Any]]]:
    """Compute a program with zeros added to loops, by number, and to values, by key.

    Returns
    -------
    callable that reads the program's values, and what each loop has left, by its number
    """
    of_loops, of_values = zeros
    numbers = {op: number for number, op in enumerate(loops)}
    seen: dict[int, dict[str, Any]] = {}

    def step(op: Op, values: list[Any]) -> Sequence[Any]:
        if op not in loops:
            return bind(op, values)
        number = numbers[op]
        results, left = _tapped(loops[op], values, of_loops[number])
        seen[number] = left.as_dict()
        return results

    def change(key: int, value: Any) -> Any:
        return value + of_values[key] if key in of_values else value

    return evaluate(program, arguments, run=step, consts=consts, change=change), seen


def zeros_of(loop: Loop) -> Zeros:
    """Make what is added to a loop."""
    consts, initial, inputs = loop.parts(loop.body.inputs)
    steps = (loop.length,)
    return {
        "consts": [_zeros(loop, key) for key in consts],
        "initial": [_zeros(loop, key) for key in initial],
        "inputs": [_zeros(loop, key, steps) for key in inputs],
        "states": [_zeros(loop, state.key, steps) for state in loop.states],
        "emitted": [_zeros(loop, key, steps) for key in loop.emitted],
        "final": [_zeros(loop, key) for key in loop.carried],
    }


def _zeros(loop: Loop, key: Any, steps: tuple[int, ...] = ()) -> Any:
    shape = loop.body.shapes[key] if isinstance(key, int) else key.aval
    return jnp.zeros((*steps, *shape.shape), shape.dtype) if loop.is_floating(key) else None


def _tapped(loop: Loop, values: list[Any], zeros: Zeros) -> tuple[list[Any], Seen]:
    consts, initial, inputs = loop.parts(values)
    places = {state.key: position for position, state in enumerate(loop.states)}
    others = [k for k in loop.changing if k not in {state.place for state in loop.states}]
    consts, initial, inputs = map(
        _added, (consts, initial, inputs), (zeros[name] for name in ("consts", "initial", "inputs"))
    )

    def step(carry: Any, now: Any) -> tuple[Any, Any]:
        x, taps = now

        def change(key: int, value: Any) -> Any:
            return value + taps[places[key]] if key in places else value

        read = evaluate(loop.body, [*consts, *carry, *x], change=change)
        kept = [read(state.key) for state in loop.states], {k: carry[k] for k in others}
        return [read(key) for key in loop.carried], ([read(key) for key in loop.emitted], *kept)

    params = loop.op.eqn.params
    again = _checkpointed(step, loop.body)
    final, (emitted, states, entering) = jax.lax.scan(
        again,
        list(initial),
        (list(inputs), zeros["states"]),
        length=loop.length,
        reverse=loop.reverse,
        unroll=params.get("unroll", 1),
    )
    emitted = _added(emitted, zeros["emitted"])
    results = [*_added(final, zeros["final"]), *emitted]
    return results, Seen(list(consts), list(initial), list(inputs), states, entering, emitted)


def _checkpointed(step: Any, body: Program) -> Any:
    """Keep as little of a step as the caller's own remat does."""
    if body.checkpoint is None:
        return step
    return jax.checkpoint(step, policy=body.checkpoint.get("policy"), prevent_cse=False)


def _added(values: Sequence[Any], zeros: Sequence[Any]) -> list[Any]:
    return [value if zero is None else value + zero for value, zero in zip(values, zeros, strict=True)]


def within(loop: Loop, left: Mapping[str, Any], gradients: Zeros | None) -> dict[str, Any]:
    """Run every step once more; return values and gradients of what lies within.

    Parameters
    ----------
    loop : Loop
    left : what the loop left, see `Seen`
    gradients : dict
        Of the zeros that `zeros_of` made; None without a loss.

    Returns
    -------
    dict
        `values` by name (time, …), and with gradients: `gradients` of the same, `consts`, `inputs`, and
        `carried`, what each step hands back to the state that entered it.
    """
    seen = Seen(**left)
    taps = {f"gate {name}": gate.before for name, gate in loop.gates.items()}
    values = {f"gate {name}": gate.value for name, gate in loop.gates.items()}
    marks = {f"mark {name}": key for name, key in loop.marks.items()}
    step = partial(_step, loop, {**taps, **marks}, {**values, **marks})
    step = jax.vmap(step, in_axes=(None, 0, 0, None, 0, 0, 0))
    floats, fixed = _parted(seen.consts)
    series, whole = _parted(seen.inputs)
    zeros = {name: _zeros(loop, key, (loop.length,)) for name, key in {**taps, **marks}.items()}
    marked = series, [_before(loop, first, after) for first, after in _pairs(loop, seen)], zeros
    asked = None if gradients is None else [*gradients["states"], *gradients["emitted"]]

    def total(floats: Any, marked: Any, known: Any) -> tuple[Any, Any]:
        (series, before, zeros), (whole, entering, states, asked) = marked, known
        consts, inputs = _together(floats, fixed), _together(series, whole)
        made, emitted, found = step(consts, inputs, before, seen.initial, entering, states, zeros)
        pairs = zip([*made, *emitted], asked or [], strict=asked is not None)
        terms = [jnp.sum(value * gradient) for value, gradient in pairs if gradient is not None]
        return sum(terms, jnp.zeros(())), found

    known = whole, seen.entering, seen.states, asked
    if gradients is None:
        return {"values": total(floats, marked, known)[1]}

    def part(consts: Any, steps: Any) -> tuple[Any, Any]:
        (more, of_steps), found = jax.grad(total, (0, 1), has_aux=True)(floats, *steps)
        return jax.tree.map(jnp.add, consts, more), (of_steps, found)

    # A few steps at a time stay in the processor's cache.
    size = next(size for size in range(_AT_ONCE, 0, -1) if loop.length % size == 0)
    parts = jax.tree.map(lambda one: one.reshape(-1, size, *one.shape[1:]), (marked, known))
    consts, left_over = jax.lax.scan(part, jax.tree.map(jnp.zeros_like, floats), parts)
    (inputs, carried, tapped), found = jax.tree.map(lambda one: one.reshape(-1, *one.shape[2:]), left_over)
    return {"values": found, "gradients": tapped, "consts": consts, "inputs": inputs, "carried": carried}


def _pairs(loop: Loop, seen: Seen) -> list[tuple[Any, Any]]:
    return [(seen.initial[one.place], seen.states[n]) for n, one in enumerate(loop.states)]


def _before(loop: Loop, first: Any, after: Any) -> Any:
    """Put each step's entering state in its place."""
    if loop.reverse:
        return jnp.concatenate([after[1:], first[None]])
    return jnp.concatenate([first[None], after[:-1]])


def _step(  # noqa: PLR0913, PLR0917 - the structures that vmap maps differently
    loop: Loop,
    taps: Mapping[str, int],
    values: Mapping[str, int],
    consts: Any,
    inputs: Any,
    before: Any,
    initial: Any,
    entering: Any,
    known: Any,
    zeros: Any,
) -> tuple[Any, Any, Any]:
    """Run one step from known states; each state goes on as the loop has found it, so that it counts once."""
    carry = list(initial)
    for state, value in zip(loop.states, before, strict=True):
        carry[state.place] = value
    for place, value in entering.items():
        carry[place] = value
    places = {state.key: position for position, state in enumerate(loop.states)}
    tapped = {key: zeros[name] for name, key in taps.items()}
    made: list[Any] = [None] * len(loop.states)

    def change(key: int, value: Any) -> Any:
        if key in tapped:
            value = value + tapped[key]
        if key in places:
            made[places[key]] = value
            return known[places[key]]
        return value

    read = evaluate(loop.body, [*consts, *carry, *inputs], change=change)
    emitted = [read(key) for key in loop.emitted]
    return made, emitted, {name: read(key) for name, key in values.items()}


def _parted(values: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Part floating values from the others, with None in the place of each."""
    is_float = [jnp.issubdtype(jnp.result_type(value), jnp.inexact) for value in values]
    floats = [value if each else None for value, each in zip(values, is_float, strict=True)]
    others = [None if each else value for value, each in zip(values, is_float, strict=True)]
    return floats, others


def _together(floats: Sequence[Any], others: Sequence[Any]) -> list[Any]:
    return [one if other is None else other for one, other in zip(floats, others, strict=True)]
