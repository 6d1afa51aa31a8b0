"""Notes every call of a module: marks of what enters, and copies of what leaves in its place.

The gradient at a mark is what this call hands back, that at a copy what others ask of the result, and that of
the result itself is total.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils import _pytree

from .structure import is_packed

# What gives a tensor another shape and leaves its values and gradients alone.
_RESHAPES = frozenset(
    {"SqueezeBackward0", "SqueezeBackward1", "UnsqueezeBackward0", "ViewBackward0", "AliasBackward0"}
)
Key = tuple[str, ...]  # the name of an argument, and places within it


@dataclass(eq=False)
class Entering:
    """A tensor among the arguments: as it was given, and the edge, or mark, of what the module reads."""

    given: torch.Tensor
    mark: Any
    taken: torch.Tensor | None  # what an earlier call returned, where this was handed out for it

    @property
    def shape(self) -> torch.Size:
        """Of the tensor."""
        return self.given.shape


@dataclass(eq=False)
class Leaving:
    """A tensor among the results: as the module made it, its edge, and that of the copy handed out."""

    plain: torch.Tensor
    edge: GradientEdge | None
    copy: GradientEdge | None


@dataclass(eq=False)
class Step:
    """One call: arguments by name and place, results by place; of a cell its weights and their marks."""

    order: int
    entering: dict[Key, Entering]
    leaving: dict[int, Leaving]
    weights: tuple[torch.Tensor, ...] = ()
    marked: tuple[torch.Tensor, ...] = ()

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
    handed_out: dict[Any, tuple[int, int]] = field(default_factory=dict)  # node of a copy: call, place
    plain: set[Any] = field(default_factory=set)  # nodes of what the module itself holds
    _specs: list[tuple[Any, list[Key]]] = field(default_factory=list)

    def run(self, forward: Any, arguments: Any, keywords: Any, order: int) -> Any:
        """Call the module on copies of what it is given, and hand out copies of what it returns."""
        flat, spec = _pytree.tree_flatten((arguments, keywords), is_leaf=is_packed)
        step, copies = Step(order, {}, {}), {}
        for place, key in enumerate(self._keys(flat, spec)):
            if _is_floating(flat[place]):
                step.entering[key], copies[place] = self._entering(flat[place])
        arguments, keywords = spec.unflatten([copies.get(k, leaf) for k, leaf in enumerate(flat)])
        result = forward(*arguments, **keywords)
        flat, spec = _pytree.tree_flatten(result, is_leaf=is_packed)
        return spec.unflatten(self.hand_out(step, flat))

    def hand_out(self, step: Step, results: Sequence[Any]) -> list[Any]:
        """Keep a call with its results, and give copies of them."""
        self.steps.append(step)
        same: dict[int, GradientEdge] = {}  # a module may return one tensor at two places
        handed_out = list(results)
        for place, one in enumerate(results):
            if _is_floating(one):
                edge = same.setdefault(id(one), get_gradient_edge(one)) if one.requires_grad else None
                handed_out[place] = copy = one.clone()
                of_copy = get_gradient_edge(copy) if copy.grad_fn is not None else None
                step.leaving[place] = Leaving(one, edge, of_copy)
                if of_copy is not None and edge is not None:
                    self.handed_out[of_copy.node] = len(self.steps) - 1, place
                    self.plain.add(edge.node)
        return handed_out

    @property
    def first_node(self) -> int:
        """See `Step.first_node`; what was made before it is of no interest."""
        return next((step.first_node for step in self.steps if step.first_node), 0)

    @property
    def results(self) -> list[torch.Tensor]:
        """What the latest call returned."""
        return [one.plain for one in self.steps[-1].leaving.values()]

    def _entering(self, given: torch.Tensor) -> tuple[Entering, torch.Tensor]:
        # Taken from before its copy, which keeps what all others ask of it.
        taken = self.taken(given)
        source = given if taken is None else taken
        if torch.is_grad_enabled() and not source.requires_grad:
            source = source.detach().requires_grad_()
        copy = source.clone()
        mark = get_gradient_edge(copy) if copy.grad_fn is not None else None
        return Entering(given, mark, taken), copy

    def taken(self, given: torch.Tensor) -> torch.Tensor | None:
        """Find what a call returned, where this was handed out for it, at most reshaped."""
        node = given.grad_fn
        while node is not None and node not in self.handed_out and node.name() in _RESHAPES:
            node = node.next_functions[0][0]
        if node not in self.handed_out:
            return None
        number, place = self.handed_out[node]
        plain = self.steps[number].leaving[place].plain
        return plain if plain.shape == given.shape else None

    def _keys(self, flat: Sequence[Any], spec: Any) -> list[Key]:
        """Name the leaves of a call's arguments by the module's own names for them."""
        for known, keys in self._specs:
            if known == spec:
                return keys
        arguments, keywords = spec.unflatten(list(range(len(flat))))
        named = [*zip(self.names, arguments, strict=False), *keywords.items()]
        keys = [(f"argument_{place}",) for place in range(len(flat))]
        for name, value in named:
            for path, place in _pytree.tree_flatten_with_path(value)[0]:
                keys[place] = (name, *map(str, path))
        self._specs.append((spec, keys))
        return keys


def names_of(forward: Any) -> tuple[str, ...]:
    """Name the arguments of a module that can take a state beside its input; none of any other."""
    try:
        parameters = inspect.signature(forward).parameters.values()
    except (TypeError, ValueError):
        return ()
    found = [one.name for one in parameters if one.kind is not one.VAR_KEYWORD]
    variable = any(one.kind is one.VAR_POSITIONAL for one in parameters)
    if variable:
        return (*found[:-1], *(f"{found[-1]}_{place}" for place in range(8)))
    return tuple(found) if len(found) > 1 else ()


def _is_floating(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
