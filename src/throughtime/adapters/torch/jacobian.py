"""The Jacobian of each call of a module, from the state given to it to the state that it returned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from .calls import Entering, Step
from .recurrence import State

Rows = Callable[[torch.Tensor], torch.Tensor]  # brings a state to (sample, …)


def step_jacobians(
    steps: Sequence[Step], states: Sequence[State], rows: Rows, *, is_given: bool
) -> torch.Tensor | None:
    """Differentiate what each call returned by what it was given, through the graph that it has left.

    Parameters
    ----------
    steps : sequence of Step
    states : sequence of State
    rows : callable
    is_given : bool
        The first call is given a state. Otherwise its Jacobian is the identity.

    Returns
    -------
    tensor (sample, time, state, state) or None
        Rows new, columns old; states flattened, one after another. No sample depends on another. None where
        the loop runs without gradients.
    """
    if any(step.leaving[state.place].edge is None for step in steps for state in states):
        return None
    each = [_of_step(step, states, rows) for step in steps[0 if is_given else 1 :]]
    same = torch.eye(each[0].shape[-1], dtype=each[0].dtype, device=each[0].device).expand_as(each[0])
    return torch.stack(each if is_given else [same, *each], 1)


def _of_step(step: Step, states: Sequence[State], rows: Rows) -> torch.Tensor:
    before = [step.entering[state.argument] for state in states]
    return torch.cat([_rows_of(step.leaving[state.place].plain, before, rows) for state in states], 1)


def _rows_of(after: torch.Tensor, before: Sequence[Entering], rows: Rows) -> torch.Tensor:
    places = _places(after, rows)
    each = after.new_zeros(places.shape[1], after.numel()).scatter_(1, places.T, 1)
    back = _back(after, [one.mark for one in before], each.view(-1, *after.shape))
    found = []
    for one, gradient in zip(before, back, strict=True):
        flat = after.new_zeros(len(each), one.given.numel()) if gradient is None else gradient.flatten(1)
        found.append(flat[:, _places(one.given, rows)].transpose(0, 1))
    return torch.cat(found, 2)


def _places(state: torch.Tensor, rows: Rows) -> torch.Tensor:
    """Where each number of each sample stands in a state, (sample, number)."""
    return rows(torch.arange(state.numel(), device=state.device).view_as(state)).flatten(1)


def _back(after: torch.Tensor, marks: Sequence[Any], each: torch.Tensor) -> Sequence[torch.Tensor | None]:
    """Take many gradients back at once, or one by one through what has no batching rule."""
    settings: dict[str, bool] = {"retain_graph": True, "allow_unused": True}
    try:
        return list(torch.autograd.grad(after, marks, each, is_grads_batched=True, **settings))
    except RuntimeError:
        one_by_one = [torch.autograd.grad(after, marks, one, **settings) for one in each]
        columns = zip(*one_by_one, strict=True)
        return [None if one[0] is None else torch.stack(one) for one in columns]
