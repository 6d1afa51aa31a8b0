"""Differentiates each call of a loop by the states that it was given."""

from collections.abc import Callable, Sequence

import torch

from .calls import Entering, Step
from .marks import Place, together
from .recurrence import Recurrence

Ordered = Callable[[torch.Tensor], torch.Tensor]  # brings a state to (sample, …)


def step_jacobians(loop: Recurrence, *, is_given: bool) -> torch.Tensor | None:
    """Differentiate what each call returned by what it was given, through the graph that it has left.

    Returns (sample, time, state, state), rows new, columns old, states flattened, one after another; no
    sample depends on another. None where the loop runs without gradients. Unless the first call `is_given` a
    state, its Jacobian is the identity.
    """
    if any(step.leaving[state.place].edge is None for step in loop.steps for state in loop.states):
        return None
    each = [_jacobian(loop, step) for step in loop.steps[0 if is_given else 1 :]]
    same = torch.eye(each[0].shape[-1], dtype=each[0].dtype, device=each[0].device)
    return loop.series(each if is_given else [same.expand(loop.samples, -1, -1), *each])


def _jacobian(loop: Recurrence, step: Step) -> torch.Tensor:
    before = [step.entering[state.argument] for state in loop.states]
    after = (step.leaving[state.place].plain for state in loop.states)
    return torch.cat([_rows_of(one, before, loop.by_sample) for one in after], 1)


def _rows_of(after: torch.Tensor, before: Sequence[Entering], rows: Ordered) -> torch.Tensor:
    numbers = places(after, rows)
    each = after.new_zeros(numbers.shape[1], after.numel()).scatter_(1, numbers.T, 1)
    back = _many_back(
        after, [one.mark for one in before if one.mark is not None], each.view(-1, *after.shape)
    )
    found = []
    for one, gradient in zip(before, back, strict=True):
        flat = after.new_zeros(len(each), one.given.numel()) if gradient is None else gradient.flatten(1)
        found.append(flat[:, places(one.given, rows)].transpose(0, 1))
    return torch.cat(found, 2)


def places(state: torch.Tensor, rows: Ordered) -> torch.Tensor:
    """Return the flat indices of the elements of a state, a row for each sample, (sample, number)."""
    return rows(torch.arange(state.numel(), device=state.device).view_as(state)).flatten(1)


def _many_back(
    after: torch.Tensor, marks: Sequence[Place], each: torch.Tensor
) -> Sequence[torch.Tensor | None]:
    """Take many gradients back at once, or one by one through what has no batching rule."""
    asked = together(marks)
    settings: dict[str, bool] = {"retain_graph": True, "allow_unused": True}
    try:
        return list(torch.autograd.grad(after, asked, each, is_grads_batched=True, **settings))
    except RuntimeError:
        one_by_one = [torch.autograd.grad(after, asked, one, **settings) for one in each]
        columns = zip(*one_by_one, strict=True)
        return [None if one[0] is None else torch.stack(one) for one in columns]
