"""Follows the graph of a loop's calls, by taking gradients back through it once more.

It finds how states change between two calls: which samples are reset, which keep their states, and what
gradient goes back. It also computes the certificate of the loop.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch

from throughtime.adapters.records import Array

from .calls import Entering, Leaving, Step, unshaped
from .jacobians import places
from .marks import Gradients, flattened, sum_of, together
from .recurrence import Recurrence
from .staying import State, ramp
from .structure import numpy

_CHECKED = 5  # calls of a loop
Rows = Callable[[torch.Tensor, int], torch.Tensor]  # brings a state of a call to (sample, …)


@dataclass(eq=False, slots=True)
class Crossing:
    """One state between a call and the next.

    The first call took `before` and handed out `left`; the second took `entered`, and `gradient` is
    dL/d(`entered`) through it. `places` are those of the samples that continue, along `axis`, if some have
    left.
    """

    before: Entering | None
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
        self._gradients, self._recurrence = gradients, recurrence
        pairs = pairwise(recurrence.steps)
        self._each = [[self._crossing(*pair, state) for state in recurrence.states] for pair in pairs]

    def _crossing(self, before: Step, after: Step, state: State) -> Crossing:
        entered = after.entering[state.argument]
        gradient = self._gradients.tensor(entered.mark)
        taken = before.entering.get(state.argument)
        return Crossing(taken, before.leaving[state.place], entered, gradient, after.places, state.axis)

    @cached_property
    def are_handed_on(self) -> bool:
        """Whether every state that enters the next call is the tensor handed out."""
        return all(one.is_unchanged for crossings in self._each for one in crossings)

    @property
    def are_same(self) -> bool:
        """Whether every state enters the next call as it was handed out, of all samples or of some."""
        return all(one.is_same for crossings in self._each for one in crossings)

    @cached_property
    def held(self) -> torch.Tensor:
        """Which samples keep the states that entered a call, (sample, call).

        Nothing reads their new states, as under `torch.where(valid, new, old)`. No call follows the last one:
        if an earlier call holds states, the last one holds those of samples without a gradient.
        """
        none = self._none(self._rows)
        if self.are_handed_on:
            return none[:, None].expand(-1, len(self._each) + 1)
        pairs = enumerate(zip(self._each, self._may_hold, strict=True))
        each = [self._held(one, k, none) if may_hold else none for k, (one, may_hold) in pairs]
        is_known = any(bool(one.any()) for one in each)
        return torch.stack([*each, self._unused(len(each), none) if is_known else none], 1)

    def _rows(self, state: torch.Tensor, number: int) -> torch.Tensor:
        """Bring a state to (sample, …); one of a kernel has its layers before its samples."""
        if self._recurrence.states[0].axis and state.ndim == 3:
            state = state.transpose(0, 1).flatten(1)
        return self._recurrence.whole(state, number)

    @property
    def _may_hold(self) -> list[bool]:
        """Whether each call may hold states: a number enters the next call as it entered this one."""
        first = [crossings[0] for crossings in self._each]
        if all(one.is_unchanged for one in first):
            return [False] * len(first)
        given = [one.entered.given for one in first]
        before = [given[0] if one.before is None else one.before.given for one in first]
        if len({one.shape for one in (*given, *before)}) > 1:
            return [True] * len(first)
        same = torch.stack(given).detach() == torch.stack(before).detach()
        return same.flatten(1).any(1).tolist()

    def _held(self, crossings: Sequence[Crossing], number: int, none: torch.Tensor) -> torch.Tensor:
        """Find the samples whose states all enter as they entered the call before, past that call."""
        given = [one.entered.given for one in crossings]
        before = [one.before.given for one in crossings if one.before is not None and not one.is_unchanged]
        if len(before) < len(given) or not all(one.requires_grad for one in given):
            return none
        pairs, rows = list(zip(given, before, strict=True)), self._rows
        if any(one.shape != old.shape for one, old in pairs):
            return none
        same = [~_any(rows(one.detach(), number + 1) != rows(old.detach(), number)) for one, old in pairs]
        held = torch.stack(same).all(0)
        if bool(held.any()):
            reached = [_is_reached(one, crossings, rows, number) for one in crossings]
            held = held & ~torch.stack([none, *reached]).any(0)
        if bool(held.any()) and all(one.requires_grad for one in before):
            ramps, sources = [ramp(one) for one in given], [unshaped(one) for one in before]
            back = torch.autograd.grad(given, sources, ramps, retain_graph=True, allow_unused=True)
            reached = [none if one is None else _any(rows(one, number)) for one in back]
            held = held & torch.stack([one if one.shape == none.shape else none for one in reached]).all(0)
        elif bool(held.any()):  # the graph does not show where these states go
            held = held & self._unused(number, none)
        return held

    def _unused(self, number: int, none: torch.Tensor) -> torch.Tensor:
        """Which samples nobody asks anything of after a call; none without gradients."""
        step = self._recurrence.steps[number]
        edges = [edge for one in step.leaving.values() for edge in (one.edge, one.copy) if edge is not None]
        back = [one for edge in edges if (one := self._gradients.tensor(edge)) is not None]
        if step.layout is not None:
            outputs = [self._gradients.of(layer.output) for layer in step.layers]
            each = [step.layout.by_sample(one) for one in outputs if one is not None]
            back += [_any(torch.from_numpy(one)).to(none.device)[:, None] for one in each]
        asked = [row for one in back if (row := _any(self._rows(one, number))).shape == none.shape]
        return ~torch.stack(asked).any(0) if asked else none

    def _none(self, rows: Rows) -> torch.Tensor:
        return torch.zeros_like(rows(self._each[0][0].left.plain, 0).flatten(1)[:, 0], dtype=torch.bool)

    @cached_property
    def _whole(self) -> list[list[Crossing]]:
        """The crossings; a state that a call holds also gets what the call after it passes back."""
        each = list(self._each)
        for number in reversed(range(1, 0 if self.are_handed_on else len(each))):
            if bool((held := self.held[:, number]).any()):
                pairs = zip(each[number - 1], each[number], strict=True)
                each[number - 1] = [self._joined(one, later, held, number) for one, later in pairs]
        return each

    def _joined(self, one: Crossing, later: Crossing, held: torch.Tensor, number: int) -> Crossing:
        if later.gradient is None:
            return one
        return replace(one, gradient=sum_of([one.gradient, self._of(later.gradient, held, number)]))

    def _of(self, gradient: torch.Tensor, held: torch.Tensor, number: int) -> torch.Tensor:
        """Take a gradient of these samples alone, 0 for others."""
        mask = torch.zeros_like(gradient, dtype=torch.bool)
        mask.view(-1)[places(mask, lambda tensor: self._rows(tensor, number))[held].flatten()] = True
        return gradient * mask

    def past_first(self, place: int) -> torch.Tensor | None:
        """Return what comes back to a state before the first call past that call, if it holds samples."""
        if not self._each or not bool((held := self.held[:, 0]).any()):
            return None
        gradient = self._whole[0][place].gradient
        return None if gradient is None else self._gradients.unscaled(self._of(gradient, held, 0))

    @cached_property
    def through(self) -> Sequence[Sequence[torch.Tensor | None]]:
        """Gradients that each call passes back, through the change between calls, to the previous states."""
        if self.are_handed_on:
            return [[None] * len(self._recurrence.states)] * len(self._each)
        each = []
        for crossings in self._whole:
            sources = [(one.entered.given, one.gradient) for one in crossings if not one.is_unchanged]
            given = [(tensor, gradient) for tensor, gradient in sources if gradient is not None]
            each.append(_back(given, crossings) if given else [None] * len(crossings))
        return each

    def variables(self, rows: Rows) -> dict[str, Array]:
        """Make `reset`, `carried_gradient` (sample, time) and `carried_by_state` (sample, time, state)."""
        none = self._none(rows)
        resets = [none] * len(self._each)
        if not self.are_handed_on:
            resets = [_resets(crossings, rows, number, none) for number, crossings in enumerate(self._each)]
        carried = []
        for place, one in enumerate(self._whole[0]):
            states = (crossings[place] for crossings in self._whole)
            as_it_is = (state.gradient if state.is_unchanged else None for state in states)
            changed = (back[place] for back in self.through)
            back = map(sum_of, zip(as_it_is, changed, strict=True))
            zero = torch.zeros_like(rows(one.left.plain, 0))
            with torch.no_grad():
                each = [zero if one is None else rows(one, number) for number, one in enumerate(back)]
                stacked = self._gradients.unscaled(torch.stack([*each, zero], 1))
            carried.append(_norms(stacked.flatten(2)))
        norms = numpy(torch.stack(carried, 2))
        return {
            "reset": numpy(torch.stack([none, *resets], 1) & ~self.held.roll(1, 1)),
            "carried_gradient": np.hypot.reduce(norms, -1),
            "carried_by_state": norms,
        }


def _norms(values: torch.Tensor) -> torch.Tensor:
    """Norm over the last axis; scaled, because squares of small numbers would underflow."""
    sizes, least = values.abs(), torch.finfo(values.dtype).tiny
    scale = sizes.amax(-1, keepdim=True).clamp(least, 1 / least)
    norms: torch.Tensor = (sizes / scale).norm(dim=-1) * scale.squeeze(-1)
    return norms


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
            resets = resets | (differs & ~_is_reached(one, crossings, rows, number))
    return resets


def _is_reached(one: Crossing, crossings: Sequence[Crossing], rows: Rows, number: int) -> torch.Tensor:
    """Whether any state that a call returned reaches this one, by sample."""
    given, none = one.entered.given, torch.zeros_like(one.left.plain)
    back = [gradient for gradient in _back([(given, ramp(given))], crossings) if gradient is not None]
    return torch.stack([_any(rows(gradient, number)) for gradient in (none, *back)]).any(0)


def _any(values: torch.Tensor) -> torch.Tensor:
    return values.flatten(1).ne(0).any(1)


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
