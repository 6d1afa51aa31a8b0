"""Cuts off, as training does, what layers returned while gradients were off, if other calls train them."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch.autograd.graph import Node

from . import structure
from .calls import Calls, Leaving
from .marks import Gradients


class Cuts:
    """Nodes of what each layer returned while gradients were off."""

    def __init__(self) -> None:
        self._nodes = defaultdict[int, set[Node]](set)

    def add(self, layer: int, result: object) -> None:
        """Note what a call returned."""
        nodes = (one.grad_fn for one in structure.tensors(result))
        self._nodes[layer].update(node for node in nodes if node is not None)

    def has(self, layer: int) -> bool:
        """Whether the layer has been called while gradients were off."""
        return bool(self._nodes[layer])

    def off(self, layer: int, arguments: tuple[Any, ...], calls: Calls) -> tuple[Any, ...]:
        """Detach those arguments of a call that depend on nothing else."""
        for one in structure.tensors(arguments) if self.has(layer) else ():
            if _ends_in(one, self._nodes[layer], calls):
                arguments = structure.replaced(arguments, one, one.detach())
        return arguments

    def close(self, trained: Collection[int]) -> None:
        """Let nothing come back to what these layers returned."""
        for layer in trained:
            for node in self._nodes[layer]:
                node.register_prehook(_zeros)

    def to_zero(self, trained: Collection[int], each: Iterable[Leaving], gradients: Gradients) -> None:
        """Do the same to gradients that autograd has taken before."""
        nodes = set().union(*(self._nodes[layer] for layer in trained))
        for copy in (one.copy for one in each if nodes and one.copy is not None):
            if copy.node in nodes and (found := gradients.tensor(copy)) is not None:
                gradients.put(copy, torch.zeros_like(found))


def _zeros(gradients: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.zeros_like(one) for one in gradients)


def _ends_in(tensor: torch.Tensor, cut: Collection[Node], calls: Calls) -> bool:
    waiting = [] if tensor.grad_fn is None else [tensor.grad_fn]
    seen, oldest = set(waiting), calls.first_node
    while waiting:
        node = waiting.pop()
        if node in cut:
            continue
        before = [one for one, _ in node.next_functions if one is not None]
        if not before or node in calls.handed_out or node._sequence_nr() < oldest:
            return False
        waiting += [one for one in before if one not in seen]
        seen.update(before)
    return bool(seen)
