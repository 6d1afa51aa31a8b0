"""Finds where a program replaces a state between two steps, or keeps the old one: resets and masks.

Both select a state or multiply it by what no state decides: `where(done, start, h)`, `(1 - done) * h`,
`where(valid, new, h)`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from .gates import Body
from .program import Op, Value

# What turns an array of the batch, a counter or a constant into a decision.
_DECIDING = frozenset(
    {
        *(
            "add",
            "sub",
            "mul",
            "neg",
            "not",
            "and",
            "or",
            "xor",
            "eq",
            "ne",
            "lt",
            "le",
            "gt",
            "ge",
            "rem",
            "select_n",
        ),
        *("broadcast_in_dim", "convert_element_type", "reshape", "squeeze", "transpose", "slice", "copy"),
        *("reduce_or", "reduce_and", "stop_gradient", "iota"),
    }
)


@dataclass(frozen=True)
class Change:
    """One selection or product.

    Attributes
    ----------
    key : int
        The value that decides.
    case : int or None
        The decision that keeps the state; None where the state is multiplied by it.
    state : int
        The value on the other side: what a step computes with, or what it has made.
    """

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


def changes_of(body: Body, place: int, inputs: Collection[int]) -> Changes:
    """Read what happens to one carry.

    Parameters
    ----------
    body : Body
        As the loop has it: before and after each whole step.
    inputs : collection of int
        Keys of what enters step by step, and of carries that count.
    """
    return _Reading(body, place, inputs).changes()


class _Reading:
    def __init__(self, body: Body, place: int, inputs: Collection[int]) -> None:
        self.body, self.inputs = body, inputs
        self.before, self.after = body.before[place], body.after[place]

    def changes(self) -> Changes:
        readers = list(self.body.readers(self.before))
        on_entry = self._of(readers[0], self._is_before) if len(readers) == 1 else None
        entered = self.before
        if on_entry is not None and readers[0].outputs[0] != self.after:
            entered = readers[0].outputs[0]
        else:
            on_entry = None
        made, on_exit = self.after, self._of(self.body.op(self.after), self._is_made)
        if on_exit is not None and on_exit.state not in (self.before, entered):
            made = on_exit.state
        else:
            on_exit = None
        mask = self._of(self.body.op(made), lambda value: value not in (self.before, entered))
        if mask is not None and mask.case is not None:
            op = self.body.op(made)
            if op is not None and {self.before, entered} & set(map(self.body.source, op.inputs[1:])):
                return Changes(entered, mask.state, on_entry, on_exit, mask)
        return Changes(entered, made, on_entry, on_exit)

    def _is_before(self, value: Value) -> bool:
        return bool(value == self.before)

    def _is_made(self, value: Value) -> bool:
        return self.before in self.body.ancestors(value)

    def _of(self, op: Op | None, is_state: Callable[[Value], bool]) -> Change | None:
        """Read an operation whose one operand is the state, and whose other one no state decides."""
        if op is None or op.name not in ("select_n", "mul"):
            return None
        decision, *cases = op.inputs if op.name == "select_n" else (None, *op.inputs)
        chosen = [k for k, value in enumerate(map(self.body.source, cases)) if is_state(value)]
        if len(chosen) != 1 or len(cases) != 2:
            return None
        key = cases[1 - chosen[0]] if decision is None else decision
        if not self._decides(key):
            return None
        return Change(key, None if decision is None else chosen[0], self.body.source(cases[chosen[0]]))

    def _decides(self, key: Value) -> bool:
        """Whether a value is made of what comes with the step, by nothing but comparisons and sums."""
        found = set(self.body.ancestors(key)) if isinstance(key, int) else set()
        made = [op for one in found if (op := self.body.op(one)) is not None]
        return (
            bool(found & set(self.inputs))
            and not found & set(self.body.before.values())
            and all(op.name in _DECIDING for op in made)
        )
