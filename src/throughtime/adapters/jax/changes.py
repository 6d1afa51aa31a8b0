"""Finds where a program replaces a state between two steps, or keeps the old one: resets and masks.

Both select a state or multiply it by what no state decides: `where(done, start, h)`, `(1 - done) * h`,
`where(valid, new, h)`, `valid * new + (1 - valid) * h`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np

from .gates import Body
from .program import Op, Value

# What turns an array of the batch, a counter or a constant into a decision.
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
    state: int

    def keeps(self, decision: Any) -> Any:
        """Give where the state stays, or what it is multiplied by."""
        return decision if self.case is None else decision == self.case


@dataclass(frozen=True)
class Changes:
    """Of one carry; `entered` and `made` are what a step takes the state for, and what it makes of it."""

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
    on_exit = _change(body, body.op(made), inputs, lambda value: before in body.ancestors(value))
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
    if op is None or (op.name == "sub" and not np.all(getattr(op.inputs[0], "val", 0) == 1)):
        return False
    return body.spread(op.inputs[-1]) == body.spread(decision)


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
    found = set(body.ancestors(key)) if isinstance(key, int) else set[int]()
    made = [each for one in found if (each := body.op(one)) is not None]
    decides = found & set(inputs) and not found & set(body.before.values())
    if not decides or any(each.name not in _DECIDING for each in made):
        return None
    return Change(key, case, body.source(cases[chosen[0]]))
