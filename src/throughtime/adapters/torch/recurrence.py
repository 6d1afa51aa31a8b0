"""Finds recurrences of any kind: a recurrence is a module that is called again with what it returned.

A module is one if

1. it is called at least twice, with at least two tensors, a state beside an input or another state; or with a
   state alone, which its second call takes as the first one returned it;
2. a result of one call (see `calls`) reaches an argument of a later one, in the autograd graph through
   whatever stands between the two, or by equal values if the graph is cut;
3. that argument and that result have the same shape, or the argument has fewer samples. Such pairs, the
   nearest first, are the states;
4. no module around it is one: the outermost is the layer.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from heapq import heappop, heappush

import torch
from torch.autograd.graph import Node

from .calls import Calls, Entering, Step
from .marks import Place, together
from .staying import State, is_part, why_it_ends
from .structure import Key


@dataclass(eq=False)
class Recurrence:
    """Calls of one module, each with the states that the one before returned.

    `reason` is why it ends although the module is called again. `taken` has the marks of what took a result
    as it was handed out, by the id of the result. Steps of samples that have left are `blank`.
    """

    steps: list[Step]
    states: tuple[State, ...]
    reason: str = ""
    taken: Mapping[int, Sequence[Place]] = field(default_factory=dict)
    blank: float = torch.nan
    is_single: bool = False  # the model is called with one sample

    @cached_property
    def rows(self) -> list[torch.Tensor]:
        """Samples of each call if some leave, which come first in every tensor then; else nothing."""
        first = self.states[0]
        whole = torch.arange(self.steps[0].leaving[first.place].plain.shape[first.axis])
        has_left = any(step.rows is not None for step in self.steps)
        return [whole if step.rows is None else step.rows for step in self.steps] if has_left else []

    @property
    def samples(self) -> int:
        """Number of samples; 1 where the module knows no batch."""
        return len(self.by_sample(self.steps[0].leaving[self.states[0].place].plain))

    @cached_property
    def _batch(self) -> int | None:
        """Length of the axis of samples; None where there is none."""
        carried = {state.argument for state in self.states}
        entering = self.steps[-1].entering.items()
        # An input has its samples first, a state may have its layers first.
        ordered = sorted(entering, key=lambda pair: pair[0] in carried)
        shapes = [tuple(one.given.shape) for _, one in ordered if one.given.ndim > 1]
        indices = [one for one in (self.steps[-1].indices,) if one]
        every = [*shapes, *indices]
        first, second = {one[0] for one in every}, {one[1] if len(one) == 3 else one[0] for one in every}
        # All may have a step, or layers, before their samples.
        is_first = len(every) < 2 or self.is_single if first == {1} else len(first) == 1
        if len(second) == 1 and not is_first:
            return second.pop()
        return shapes[0][0] if shapes else None

    def by_sample(self, tensor: torch.Tensor) -> torch.Tensor:
        """Bring a state, an input or an output to (sample, …)."""
        if tensor.ndim < 2:
            return tensor.reshape(1, -1) if self._batch is None else tensor.reshape(-1, 1)
        is_second = not self.rows and tensor.ndim > 2 and self._batch == tensor.shape[1]
        if is_second and tensor.shape[0] == self._batch:
            is_second = tensor.shape in self._layered
        return tensor.transpose(0, 1) if is_second else tensor

    @cached_property
    def _layered(self) -> set[torch.Size]:
        """Shapes of states (layer, sample, …), as many layers as samples: layers read each other's states."""
        step = self.steps[-1]
        square = [one for one in self.states if step.leaving[one.place].plain.shape[:2] == (self._batch,) * 2]
        marks = [edge for one in square if (edge := step.entering[one.argument].mark) is not None]
        made = [one for state in square if (one := step.leaving[state.place].plain).requires_grad]
        if not marks or not made:
            return set()
        with torch.enable_grad():
            last = torch.stack([one[-1, -1].sum() for one in made]).sum()
        found = torch.autograd.grad(last, together(marks), retain_graph=True, allow_unused=True)
        read = [(bool(one[:-1, -1].any()), bool(one[-1, :-1].any())) for one in found if one is not None]
        of_layers, of_samples = (any(side) for side in zip(*read, strict=True)) if read else (False, False)
        return {one.shape for one in made} if of_layers and not of_samples else set()

    def whole(self, tensor: torch.Tensor, number: int) -> torch.Tensor:
        """Bring a tensor of one call to (sample, …), 0 for samples that have left."""
        ordered = self.by_sample(tensor)
        if not self.rows:
            return ordered
        rows = self.rows[number].to(ordered.device)
        return ordered.new_zeros(len(self.rows[0]), *ordered.shape[1:]).index_copy(0, rows, ordered)

    def series(self, tensors: Iterable[torch.Tensor | None]) -> torch.Tensor:
        """Stack a tensor of each call, (sample, call, …): None is 0, a sample that has left `blank`."""
        each = list(tensors)
        first = next(one for one in each if one is not None)
        with torch.no_grad():
            if self.rows or self.by_sample(first) is not first:
                each = [None if one is None else self.whole(one, number) for number, one in enumerate(each)]
            zeros = torch.zeros_like(next(one for one in each if one is not None))
            found = torch.stack([zeros if one is None else one for one in each]).transpose(0, 1)
        if self.rows and found.is_floating_point():
            found[~self.valid.to(found.device)] = self.blank
        return found

    @property
    def valid(self) -> torch.Tensor:
        """Which samples each call has, (sample, call)."""
        each = [self.whole(torch.ones(len(rows), 1, dtype=torch.bool), k) for k, rows in enumerate(self.rows)]
        return torch.cat(each, 1) if each else torch.ones(self.samples, len(self.steps), dtype=torch.bool)

    def is_series(self, tensors: Iterable[torch.Tensor | None]) -> bool:
        """Whether each call has such a tensor, and all have one shape apart from samples that leave."""
        shapes = [None if one is None else tuple(one.shape) for one in tensors]
        if self.rows and None not in shapes:
            pairs = zip(shapes, self.rows, strict=True)
            shapes = [shape[1:] if shape and shape[0] == len(rows) else None for shape, rows in pairs]
        return None not in shapes and len(set(shapes)) == 1

    def uses(self, plain: torch.Tensor, step: Step) -> list[Place | None]:
        """List the places of all copies handed out of a result, and of the calls that took it as it is."""
        uses = [one.copy for one in step.leaving.values() if one.plain is plain]
        return [*uses, *self.taken.get(id(plain), ())]


@cache
def states_of_kernel(count: int, axis: int) -> tuple[State, ...]:
    """Name the states of one of torch's kernels: they come out in the order in which they go in."""
    return tuple(State(_name(place), ("states", str(place)), place, axis) for place in range(count))


def find(
    watched: Mapping[str, Calls], ends: Collection[Node], *, is_single: bool
) -> dict[str, list[Recurrence]]:
    """Find the recurrences among watched modules, by path: the outermost that take what they returned.

    `ends` are nodes of the graph that other recurrent layers hand out: what only comes from there is no
    state. `is_single`: the model is called with one sample.
    """
    several = {path: calls for path, calls in watched.items() if len(calls.steps) > 1}
    own = {path: set(calls.handed_out) for path, calls in several.items()}
    # A module that reads another one's state, as attention does, would be reached through that one.
    every = set(ends).union(*own.values())
    links = {path: _links(calls, every - own[path]) for path, calls in several.items()}
    nearer = set(ends).union(*(own[path] for path, each in links.items() if each))
    if nearer != every:
        links = {path: _links(calls, nearer - own[path]) for path, calls in several.items()}
    for path in [path for path, each in links.items() if each]:
        fed = _fed_by(several[path], links[path])
        for other in (other for other, each in links.items() if not each and own[other] & fed):
            links[other] = _links(several[other], nearer - own[other] - own[path])
    carrying = [path for path, each in links.items() if each]
    outermost = [path for path in carrying if not any(path.startswith(f"{one}/") for one in carrying)]
    recurrences = {path: _recurrences(several[path], links[path], is_single) for path in outermost}
    return {path: each for path, each in recurrences.items() if each}


@dataclass(frozen=True)
class Link:
    """A result of an earlier call that reaches an argument of a later one, over so many nodes."""

    source: int
    argument: Key
    place: int
    distance: int


_Links = Mapping[int, Sequence[Link]]


def _fed_by(calls: Calls, links: _Links) -> set[Node | None]:
    """Collect the nodes that made the states that a module takes; they may be those of another module."""
    given = (step.entering.get(one.argument) for one in _states(calls, links) for step in calls.steps[1:])
    return {one.given.grad_fn for one in given if one is not None}


def _links(calls: Calls, ends: Collection[Node]) -> _Links:
    """Find where each call gets its arguments from."""
    links = {}
    for number, step in enumerate(calls.steps[1:], 1):
        if len(step.entering) > 1 or calls.hands_on:
            links[number] = links_of(calls, step, ends, number)
    return {number: each for number, each in links.items() if each}


def links_of(
    calls: Calls, step: Step, ends: Collection[Node], number: int, *, by_values: bool = True
) -> list[Link]:
    """Find where call `number` gets its arguments from: by the graph, else by values of the call before."""
    each = [link for key, one in step.entering.items() for link in _reached(calls, key, one, ends)]
    return each if each or not by_values else list(_alike(step, number - 1, calls.steps[number - 1]))


def _reached(calls: Calls, key: Key, one: Entering, ends: Collection[Node]) -> Iterator[Link]:
    """Walk the graph back to what the module handed out, latest first and no further than its latest call.

    Nodes are numbered as they are made, so that nothing made before the first call is visited.
    """
    first = one.given.grad_fn
    if first is None:
        return
    waiting: list[tuple[int, int, Node | None, int]] = [(0, 0, first, 0)]
    seen, oldest = {first}, 0 if first in calls.handed_out else calls.first_node
    while waiting:
        *_, node, distance = heappop(waiting)
        if node is None or node in ends or node in calls.plain or node._sequence_nr() < oldest:
            continue
        if node in calls.handed_out:
            source, place = calls.handed_out[node]
            oldest = max(oldest, calls.steps[source].first_node)
            yield Link(source, key, place, distance)
            continue
        for before, _ in node.next_functions:
            if before is not None and before not in seen:
                seen.add(before)
                heappush(waiting, (-before._sequence_nr(), len(seen), before, distance + 1))


def _alike(step: Step, source: int, before: Step) -> Iterator[Link]:
    """Find states that were cut from the graph: the values that went out come in again, or 0 for a sample."""
    for key, one in step.entering.items():
        for place, leaving in before.leaving.items():
            if _is_handed_on(one.given, leaving.plain):
                yield Link(source, key, place, 0)


def _is_handed_on(given: torch.Tensor, plain: torch.Tensor) -> bool:
    """Whether a tensor has the rows of another one, as they are or as 0."""
    if given.shape != plain.shape or given.ndim == 0:
        return False
    given, plain = given.detach(), plain.detach()
    same, zero = (given == plain).all(-1), (given == 0).all(-1)
    return bool((same | zero).all() and (same & ~zero).any())


def _recurrences(calls: Calls, links: _Links, is_single: bool) -> list[Recurrence]:
    """Follow each call from the one whose states it gets."""
    states = _states(calls, links)
    last: dict[int, list[int]] = {}  # sequences of calls by their latest one
    ended: list[tuple[list[int], str]] = []
    for number in range(len(calls.steps)):
        source = max((one.source for one in links.get(number, ())), default=-1)
        sequence, reason = last.pop(source, []), ""
        if sequence:
            reason = why_it_ends(calls.steps[source], calls.steps[number], states)
        if reason:
            ended.append((sequence, reason))
            sequence = []
        last[number] = [*sequence, number]
    every = sorted([*ended, *((one, "") for one in last.values())])
    taken = taken_by(calls.steps)
    return [
        Recurrence([calls.steps[k] for k in numbers], states, reason, taken, is_single=is_single)
        for numbers, reason in every
        if len(numbers) > 1 and states
    ]


def taken_by(steps: Iterable[Step]) -> dict[int, list[Place]]:
    """List the marks of what took a result as it was handed out, by the id of the result."""
    taken: dict[int, list[Place]] = {}
    for one in (one for step in steps for one in step.entering.values()):
        if one.mark is not None and one.taken is not None:
            taken.setdefault(id(one.taken), []).append(one.mark)
    return taken


def _states(calls: Calls, links: _Links) -> tuple[State, ...]:
    """Pair arguments with results of their shape: the nearest pairs, each argument and result once."""
    distances: dict[tuple[Key, int], list[int]] = {}
    for number, each in links.items():
        for link in each:
            given = calls.steps[number].entering[link.argument].given
            if is_part(given, calls.steps[link.source].leaving[link.place].plain):
                distances.setdefault((link.argument, link.place), []).append(link.distance)
    pairs: dict[Key, int] = {}
    for key, place in sorted(distances, key=lambda pair: sum(distances[pair]) / len(distances[pair])):
        if key not in pairs and place not in pairs.values():
            pairs[key] = place
    # The first argument of a module is its input, also where it is fed back.
    keys = sorted(pairs, key=lambda key: (key[0] == calls.names[0], pairs[key]))
    return tuple(State(_name(number), key, pairs[key]) for number, key in enumerate(keys))


def _name(number: int) -> str:
    return ("hidden", "cell")[number] if number < 2 else f"state_{number}"
