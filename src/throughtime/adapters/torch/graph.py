"""Follows the graph of a loop's calls, by taking gradients back through it once more.

Changes of states between two calls: which samples are reset, what goes back. The Jacobian of each call.
The certificate of the loop.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch

from throughtime.adapters.records import Array

from .calls import Entering, Leaving, Step
from .marks import Gradients, Place, flattened, sum_of, together
from .recurrence import Recurrence
from .staying import State, ramp
from .structure import numpy

_CHECKED = 5  # calls of a loop
Rows = Callable[[torch.Tensor, int], torch.Tensor]  # brings a state of a call to (sample, …)
_Ordered = Callable[[torch.Tensor], torch.Tensor]  # does so with a state as it is


@dataclass(eq=False, slots=True)
class Crossing:
    """One state between a call and the next: what the first handed out, and what the second took.

    `gradient` is dL/d(what it took) through it. `places` are those of the samples that continue, along
    `axis`, if some have left.
    """

    left: Leaving
    entered: Entering
    gradient: torch.Tensor | None
    places: torch.Tensor | None
    axis: int

    @property
    def is_unchanged(self) -> bool:
        """Whether it is the very tensor handed out."""
        return self.entered.taken is self.left.plain

    @property
    def is_same(self) -> bool:
        """Whether the samples that continue have their state as it was handed out, and its whole gradient."""
        if self.is_unchanged or not self.entered.given.requires_grad:
            return True
        plain, back_in = self.left.plain.detach().movedim(self.axis, 0), ramp(self.entered.given)
        places = ... if self.places is None else self.places.to(plain.device)
        if not torch.equal(self.entered.given.detach().movedim(self.axis, 0), plain[places]):
            return False
        (back,), whole = _back([(self.entered.given, back_in)], [self]), torch.zeros_like(plain)
        whole[places] = back_in.movedim(self.axis, 0)
        return back is not None and torch.equal(back.movedim(self.axis, 0), whole)


class Transitions:
    """The crossings of all states between each call of a recurrence and the next."""

    def __init__(self, recurrence: Recurrence, gradients: Gradients) -> None:
        self._gradients = gradients
        pairs = pairwise(recurrence.steps)
        self._each = [[self._crossing(*pair, state) for state in recurrence.states] for pair in pairs]

    def _crossing(self, before: Step, after: Step, state: State) -> Crossing:
        entered = after.entering[state.argument]
        gradient = self._gradients.tensor(entered.mark)
        return Crossing(before.leaving[state.place], entered, gradient, after.places, state.axis)

    @property
    def are_handed_on(self) -> bool:
        """Whether every state that enters the next call is the tensor handed out."""
        return all(one.is_unchanged for crossings in self._each for one in crossings)

    @property
    def are_same(self) -> bool:
        """Whether every state enters the next call as it was handed out, of all samples or of some."""
        return all(one.is_same for crossings in self._each for one in crossings)

    @cached_property
    def through(self) -> Sequence[Sequence[torch.Tensor | None]]:
        """Gradients that each call passes back, through the change between calls, to the previous states."""
        each = []
        for crossings in self._each:
            sources = [(one.entered.given, one.gradient) for one in crossings if not one.is_unchanged]
            given = [(tensor, gradient) for tensor, gradient in sources if gradient is not None]
            each.append(_back(given, crossings) if given else [None] * len(crossings))
        return each

    def variables(self, rows: Rows) -> dict[str, Array]:
        """Make `reset`, `carried_gradient` (sample, time) and `carried_by_state` (sample, time, state)."""
        none = torch.zeros_like(rows(self._each[0][0].left.plain, 0).flatten(1)[:, 0], dtype=torch.bool)
        resets = [_resets(crossings, rows, number, none) for number, crossings in enumerate(self._each)]
        carried = []
        for place, one in enumerate(self._each[0]):
            states = (crossings[place] for crossings in self._each)
            as_it_is = (state.gradient if state.is_unchanged else None for state in states)
            changed = (back[place] for back in self.through)
            back = map(sum_of, zip(as_it_is, changed, strict=True))
            zero = torch.zeros_like(rows(one.left.plain, 0))
            with torch.no_grad():
                each = [zero if one is None else rows(one, number) for number, one in enumerate(back)]
                stacked = self._gradients.unscaled(torch.stack([*each, zero], 1))
            carried.append(stacked.flatten(2).norm(dim=2))
        norms = numpy(torch.stack(carried, 2))
        return {
            "reset": numpy(torch.stack([none, *resets], 1)),
            "carried_gradient": np.sqrt(np.square(norms).sum(-1)),
            "carried_by_state": norms,
        }


def _back(
    given: Sequence[tuple[torch.Tensor, torch.Tensor]], crossings: Sequence[Crossing]
) -> list[torch.Tensor | None]:
    """Take gradients of the states that entered calls with respect to every state that a call returned."""
    given = [(tensor, gradient) for tensor, gradient in given if tensor.requires_grad]
    places = [place for place, one in enumerate(crossings) if one.left.copy is not None]
    found: list[torch.Tensor | None] = [None] * len(crossings)
    if given and places:
        tensors, gradients = zip(*given, strict=True)
        sources = [edge for one in crossings if (edge := one.left.copy) is not None]
        back = torch.autograd.grad(tensors, sources, gradients, retain_graph=True, allow_unused=True)
        for place, gradient in zip(places, back, strict=True):
            found[place] = gradient
    return found


def _resets(crossings: Sequence[Crossing], rows: Rows, number: int, none: torch.Tensor) -> torch.Tensor:
    """Find the samples of which some state was replaced: it differs, and none that went out reaches it."""
    resets = none
    for one in crossings:
        if one.is_unchanged:
            continue
        given, plain = one.entered.given, one.left.plain
        differs = _any(rows(given.detach(), number + 1) != rows(plain.detach(), number))
        if bool(differs.any()):
            back = _back([(given, ramp(given))], crossings)
            reached = [_any(rows(gradient, number)) for gradient in back if gradient is not None]
            resets = resets | (differs & ~torch.stack([none, *reached]).any(0))
    return resets


def _any(values: torch.Tensor) -> torch.Tensor:
    return values.flatten(1).ne(0).any(1)


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


def _rows_of(after: torch.Tensor, before: Sequence[Entering], rows: _Ordered) -> torch.Tensor:
    places = _places(after, rows)
    each = after.new_zeros(places.shape[1], after.numel()).scatter_(1, places.T, 1)
    back = _many_back(
        after, [one.mark for one in before if one.mark is not None], each.view(-1, *after.shape)
    )
    found = []
    for one, gradient in zip(before, back, strict=True):
        flat = after.new_zeros(len(each), one.given.numel()) if gradient is None else gradient.flatten(1)
        found.append(flat[:, _places(one.given, rows)].transpose(0, 1))
    return torch.cat(found, 2)


def _places(state: torch.Tensor, rows: _Ordered) -> torch.Tensor:
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


def transported(recurrence: Recurrence, gradients: Gradients) -> tuple[Array | None, Array | None]:
    """Take what others ask of some calls back through each, beside dL/d(what entered), (1, call, number)."""
    chosen = sorted({round(k) for k in np.linspace(0, len(recurrence.steps) - 1, _CHECKED)})
    found = (_checked(recurrence, recurrence.steps[number], gradients) for number in chosen)
    pairs = [pair for pair in found if pair is not None]
    if not pairs:
        return None, None
    both = np.zeros((2, 1, len(pairs), max(len(ours) for ours, _ in pairs)), pairs[0][0].dtype)
    for number, pair in enumerate(pairs):
        both[:, 0, number, : len(pair[0])] = pair
    return both[0], both[1]


def _checked(recurrence: Recurrence, step: Step, gradients: Gradients) -> tuple[Array, Array] | None:
    results = {id(one.plain): one.plain for one in step.leaving.values()}.values()
    asked = [(plain, gradients.summed(recurrence.uses(plain, step))) for plain in results]
    asked = [(plain, gradient) for plain, gradient in asked if gradient is not None]
    marks = [one.mark for one in step.entering.values() if one.mark is not None]
    if not asked or not marks:
        return None
    tensors, back = zip(*asked, strict=True)
    found = torch.autograd.grad(tensors, together(marks), back, retain_graph=True, allow_unused=True)
    pairs = [(one, gradients.tensor(mark)) for mark, one in zip(marks, found, strict=True)]
    flat = [torch.cat(side) for side in zip(*map(flattened, pairs), strict=True)]
    return numpy(gradients.unscaled(flat[0])), numpy(gradients.unscaled(flat[1]))
