"""Finds which samples of a state stay in the next call, where a loop drops those that are done."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .calls import Leaving, Step
from .structure import Key


@dataclass(frozen=True)
class State:
    """A state: its name, the argument that takes it, its place in the result, the axis of its samples."""

    name: str
    argument: Key
    place: int
    axis: int = 0


def why_it_ends(before: Step, after: Step, states: Sequence[State]) -> str:
    """Give the reason why a call is not the next one of a loop; if it is, note its samples."""
    pairs, change = [], ""
    for state in states:
        old, new = before.leaving.get(state.place), after.entering.get(state.argument)
        if old is None or new is None:
            return f"the next call is given no {state.name}"
        if old.plain.shape != new.given.shape:
            shapes = f"{tuple(old.plain.shape)} to {tuple(new.given.shape)}"
            change = change or f"{state.name} changes its shape before the next call, from {shapes}"
            if not is_part(new.given, old.plain, state.axis):
                return change
        pairs.append((old, new.given, state.axis))
    if before.rows is not None or change:
        found, *others = (_rows(*pair) for pair in pairs)
        if found is None or not all(one is not None and torch.equal(one, found) for one in others):
            return f"{change or 'samples have left'}; which samples continue is not known"
        after.places, after.rows = found, found if before.rows is None else before.rows[found]
    return ""


def is_part(given: torch.Tensor, plain: torch.Tensor, axis: int = 0) -> bool:
    """Whether a state that a call is given can be one that was handed out: all of its samples, or some."""
    if given.shape == plain.shape:
        return True
    if not axis < given.ndim == plain.ndim > 1:
        return False
    same = given.shape[:axis] == plain.shape[:axis] and given.shape[axis + 1 :] == plain.shape[axis + 1 :]
    return same and 0 < given.shape[axis] < plain.shape[axis]


def ramp(given: torch.Tensor) -> torch.Tensor:
    """Make a gradient whose elements all differ, because a normalization takes equal ones to 0."""
    flat = torch.linspace(1, 2, given.numel(), dtype=given.dtype, device=given.device)
    return flat.view(given.shape)


def _rows(old: Leaving, new: torch.Tensor, axis: int) -> torch.Tensor | None:
    """Find the row that each sample of a call had in the call before, from a state that was passed on.

    None if the graph does not show it, because a row is cut off or rows are mixed.
    """
    if old.copy is None or not new.requires_grad:
        return None
    new = new.movedim(axis, 0)
    # Gradients of a sum with any weights, and of one with those times the number of the row.
    plain = ramp(new).view(len(new), -1)
    numbered = plain * torch.arange(1, len(new) + 1, dtype=new.dtype, device=new.device)[:, None]
    back = [
        torch.autograd.grad(new, [old.copy], one.view_as(new), retain_graph=True, allow_unused=True)[0]
        for one in (plain, numbered)
    ]
    if back[0] is None:
        return None
    once, times = (one.movedim(axis, 0).flatten(1) for one in back)
    place = once.abs().argmax(1, keepdim=True)
    known = once.gather(1, place).flatten().nonzero().flatten()
    once, times, place = once[known], times[known], place[known]
    row = (times / once).gather(1, place).round()
    rounding = 64 * torch.finfo(new.dtype).eps * (row * once).abs().amax(1, keepdim=True)
    if not bool(((times - row * once).abs() <= rounding).all()):
        return None
    given, every = row.flatten().long() - 1, torch.arange(len(new), device=new.device)
    # A sample whose state is replaced keeps its row if all others do.
    if len(new) == old.plain.shape[axis] and given.equal(known):
        return every.cpu()
    return known[given.argsort()].cpu() if given.sort().values.equal(every) else None
