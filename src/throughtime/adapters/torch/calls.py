"""Notes every call of a module: marks of what enters, and copies of what leaves in its place.

The gradient at a mark is what this call hands back, that at a copy what others ask of the result, and that of
the result itself is total.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from .marks import Place
from .structure import Key, Swaps

if TYPE_CHECKING:
    from .kernels import InnerLayer
    from .layout import Layout

Function = Callable[..., Any]  # a forward, a kernel
# Operations that give a tensor another shape and leave its values and gradients alone.
_RESHAPES = frozenset(
    {"SqueezeBackward0", "SqueezeBackward1", "UnsqueezeBackward0", "ViewBackward0", "AliasBackward0"}
)
_OF_PYTHON = torch._C._FunctionBase
_NOTHING: Mapping[str, Leaving] = MappingProxyType({})


def edge_of(tensor: torch.Tensor) -> GradientEdge | None:
    """Name the place of the graph where a tensor's gradient arrives; None where it has none."""
    node = tensor.grad_fn
    # A leaf has no node, and a node of a Python function is not kept.
    if node is None or isinstance(node, _OF_PYTHON):
        return get_gradient_edge(tensor) if tensor.requires_grad else None
    return GradientEdge(node, tensor.output_nr)


def unshaped(tensor: torch.Tensor) -> GradientEdge:
    """Name the place of the graph where a tensor was made, before it was reshaped."""
    found = edge_of(tensor)
    assert found is not None
    while found.node.name() in _RESHAPES and (before := found.node.next_functions[0])[0] is not None:
        found = GradientEdge(before[0], before[1])
    return found


def copied(tensor: torch.Tensor) -> tuple[torch.Tensor, GradientEdge | None]:
    """Copy a tensor for one use of it, and name the place where the gradient of that use arrives."""
    if not tensor.requires_grad and torch.is_grad_enabled():
        tensor = tensor.detach().requires_grad_()
    copy = tensor.clone()
    return copy, edge_of(copy)


def is_unchanged(given: torch.Tensor, returned: torch.Tensor) -> bool:
    """Whether a result is as it was handed out: without a hook, and without writes that autograd misses."""
    if given._backward_hooks:
        return False
    if torch.equal(given, returned):
        return True
    is_like = given.shape == returned.shape
    return is_like and torch.allclose(given, returned, rtol=0.0, atol=0.0, equal_nan=True)


def _kept(given: torch.Tensor, copy: torch.Tensor) -> torch.Tensor:
    """Return the tensor to read after the pass: a buffer may be filled anew."""
    return given if given.requires_grad else copy.detach()


@dataclass(eq=False, slots=True)
class Entering:
    """A tensor among the arguments: as it was given, and the place of the copy that the module reads."""

    given: torch.Tensor
    mark: Place | None
    taken: torch.Tensor | None  # what an earlier call returned, where this was handed out for it
    source: int  # the call whose result it is, at most reshaped; -1 without one


@dataclass(eq=False, slots=True)
class Leaving:
    """One result: the tensor as the module made it, its place, and the edge of the copy handed out.

    If `mark` names it, the place is that of the copy with which the code continues.
    """

    plain: torch.Tensor
    edge: Place | None
    copy: GradientEdge | None = None
    _handed_out: weakref.ref[torch.Tensor] | None = None  # that copy

    def noted(self) -> list[torch.Tensor] | None:
        """Note the gradient of the copy once the user's hooks have changed it; None without a hook.

        The hook that notes it is part of the graph, and must not refer to it: nothing would free the graph.
        """
        copy = None if self._handed_out is None else self._handed_out()
        if copy is None or not copy._backward_hooks:
            return None
        if self.copy is None or copy.grad_fn is not self.copy.node:  # the model has written on it
            return None
        found: list[torch.Tensor] = []
        copy.register_hook(found.append)
        return found


@dataclass(eq=False, slots=True)
class Step:
    """One call: arguments, results and what `mark` names in it; of a cell weights and their marks.

    `layers` and `layout` are those of a fused recurrent layer, whose call may have many steps of time.
    `rows` has its samples by their place in the first call of a loop, once some have left, `places` by their
    place in the call before; `indices` is the shape of the first integer tensor among the arguments.
    """

    order: int
    entering: dict[Key, Entering] = field(default_factory=dict)
    leaving: dict[int, Leaving] = field(default_factory=dict)
    weights: tuple[torch.Tensor, ...] = ()
    marked: tuple[torch.Tensor, ...] = ()
    named: Mapping[str, Leaving] = field(default_factory=lambda: _NOTHING)
    rows: torch.Tensor | None = None
    places: torch.Tensor | None = None
    indices: tuple[int, ...] = ()
    layers: tuple[InnerLayer, ...] = ()
    layout: Layout | None = None

    def edges(self, arguments: Collection[Key] | None) -> Iterator[Place]:
        """Yield the places whose gradients are needed; of what enters, those of `arguments`, None for all."""
        places = [one.mark for key, one in self.entering.items() if arguments is None or key in arguments]
        places += [one.edge for one in self.named.values()]
        places += [edge for one in self.leaving.values() for edge in (one.edge, one.copy)]
        return (one for one in places if one is not None)

    def has_handed_out(self, states: Sequence[torch.Tensor]) -> bool:
        """Whether these are all its results, as they were handed out, of the same samples."""
        if self.rows is not None or len(states) != len(self.leaving):
            return False
        for state, one in zip(states, self.leaving.values(), strict=True):
            if one.copy is None or state.grad_fn is not one.copy.node or not is_unchanged(state, one.plain):
                return False
        return True

    def take(self, key: Key, given: torch.Tensor, plain: torch.Tensor, source: int) -> torch.Tensor:
        """Note an unchanged result that a call only reads, and return a view of it."""
        read = plain.view_as(plain)
        self.entering[key] = Entering(given, read, plain, source)
        return read

    @property
    def first_node(self) -> int:
        """Number of the first copy handed out, as the graph counts its nodes."""
        nodes = [one.copy.node._sequence_nr() for one in self.leaving.values() if one.copy is not None]
        return min(nodes, default=0)


@dataclass
class Calls:
    """All calls of one module during a pass."""

    names: tuple[str, ...]
    steps: list[Step] = field(default_factory=list)
    handed_out: dict[Node, tuple[int, int]] = field(default_factory=dict)  # node of a copy: call, place
    plain: set[Node] = field(default_factory=set)  # nodes of what the module itself holds
    # Nodes of the copies of all modules, and places of what they copy: a module around them may return them.
    copies: dict[Node, Place] = field(default_factory=dict)

    def run(
        self, forward: Function, arguments: Sequence[object], keywords: Mapping[str, object], order: int
    ) -> object:
        """Call the module on copies of what it is given, and hand out copies of what it returns."""
        step, swaps = Step(order), Swaps()

        def entering(key: Key, given: torch.Tensor) -> torch.Tensor:
            if not given.is_floating_point():
                is_index = given.dtype is not torch.bool and not given.is_complex()
                step.indices = step.indices or (tuple(given.shape) if is_index else ())
                return given
            copy = self.enter(step, key, given)
            swaps.copies.append((given, copy))
            return copy

        names = self.names
        if len(arguments) > len(names):
            names = (*names, *(f"argument_{place}" for place in range(len(names), len(arguments))))
        try:
            pairs = zip(names, arguments, strict=False)
            arguments = [swaps.swapped(one, (name,), entering) for name, one in pairs]
            keywords = {name: swaps.swapped(one, (name,), entering) for name, one in keywords.items()}
            result = forward(*arguments, **keywords)
        finally:
            swaps.undo()
        self.steps.append(step)
        # A tensor that leaves as it entered is another value after the call: its own use does not count.
        entered = {id(one) for pair in swaps.copies for one in pair}

        def leaving(_: Key, made: torch.Tensor) -> torch.Tensor:
            if not made.is_floating_point():
                return made
            made = made.clone() if id(made) in entered else made
            return self._hand_out(step, made, self._place_in(step, made))

        return Swaps().swapped(result, (), leaving)

    def enter(self, step: Step, key: Key, given: torch.Tensor) -> torch.Tensor:
        """Note a tensor that a call is given, and make the copy that it reads."""
        # Taken from before its copy, which keeps what all others ask of it.
        source, place = self.place_of(given) or (-1, 0)
        left = None if source < 0 else self.steps[source].leaving[place]
        plain = None if left is None else left.plain
        taken = plain if plain is not None and is_unchanged(given, plain) else None
        copy, edge = copied(given if taken is None else taken)
        step.entering[key] = Entering(_kept(given, copy), edge, taken, source)
        return copy

    def read(self, step: Step, key: Key, given: torch.Tensor) -> torch.Tensor:
        """Note an input, and make the copy that a call only reads; that copy is its place."""
        if given.requires_grad:
            return self.enter(step, key, given)
        copy = given.detach().clone().requires_grad_()
        step.entering[key] = Entering(copy, copy, None, -1)
        return copy

    def hand_out(self, step: Step, results: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Keep a call and its new results, on which nobody writes, and return copies of them."""
        self.steps.append(step)
        return [self._hand_out(step, one, one if one.requires_grad else None) for one in results]

    def _place_in(self, step: Step, made: torch.Tensor) -> Place | None:
        """Find the place of a result, which may occur twice among them or come from another module."""
        for one in step.leaving.values():
            if one.plain is made:
                return one.edge
        edge = edge_of(made)
        return edge if edge is None else self.copies.get(edge.node, edge)

    def _hand_out(self, step: Step, made: torch.Tensor, edge: Place | None) -> torch.Tensor:
        copy, place = made.clone(), len(step.leaving)
        node = copy.grad_fn
        place_of_copy = None if node is None else GradientEdge(node, 0)
        step.leaving[place] = Leaving(made, edge, place_of_copy, weakref.ref(copy))
        if node is not None and edge is not None:
            self.handed_out[node] = len(self.steps) - 1, place
            self.copies[node] = edge
            plain = edge.grad_fn if isinstance(edge, torch.Tensor) else edge.node
            if plain is not None:
                self.plain.add(plain)
        return copy

    @property
    def may_carry(self) -> bool:
        """Whether the module can carry a state: without input, call 2 takes the result of call 1."""
        latest = self.steps[-1]
        if len(self.names) > 1 or len(latest.entering) > 1 or len(self.steps) > 2:
            return True
        if len(self.steps) > 1:
            return self.hands_on
        returned = {one.plain.shape for one in latest.leaving.values()}
        return any(one.given.shape in returned for one in latest.entering.values())

    @property
    def hands_on(self) -> bool:
        """Whether the second call takes what the first one returned, as it is."""
        return any(one.taken is not None for one in self.steps[1].entering.values())

    @property
    def first_node(self) -> int:
        """See `Step.first_node`; what was made before it is of no interest."""
        return next((step.first_node for step in self.steps if step.first_node), 0)

    def place_of(self, given: torch.Tensor) -> tuple[int, int] | None:
        """Find which call and place handed out a tensor, at most reshaped."""
        node = given.grad_fn
        while node is not None and node not in self.handed_out and node.name() in _RESHAPES:
            node = node.next_functions[0][0]
        return None if node is None else self.handed_out.get(node)


def names_of(forward: Function) -> tuple[str, ...]:
    """Name the arguments of a module."""
    try:
        parameters = inspect.signature(forward).parameters.values()
    except (TypeError, ValueError):
        return ()
    found = [one.name for one in parameters if one.kind is not one.VAR_KEYWORD]
    if any(one.kind is one.VAR_POSITIONAL for one in parameters):
        return (*found[:-1], *(f"{found[-1]}_{place}" for place in range(8)))
    return tuple(found)
