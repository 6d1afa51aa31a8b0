"""Marked copies of tensors: the gradient with respect to a mark is the gradient through that one use.

A mark shares memory with its tensor and is never handed to a user's code, which could write on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar, cast

import torch
from torch.autograd.graph import GradientEdge

from throughtime.adapters.needs import INSIDE_GRADIENTS
from throughtime.adapters.records import Array

from .structure import numpy

Summand = TypeVar("Summand", torch.Tensor, Array)
INPUT, OUTPUT, STATE, WEIGHT = "input", "output", "state", "weight"
Place = torch.Tensor | GradientEdge  # that has a gradient: the tensor itself if nobody else writes on it
TAKEN = "taken"  # whatever a call of a loop is given, beside its states
_NEEDED_FOR = {
    INPUT: frozenset({"input_gradient", "certificate"}),
    TAKEN: INSIDE_GRADIENTS | {"input_gradient", "certificate"},
    # Whether anyone reads what a call returns.
    OUTPUT: INSIDE_GRADIENTS | {"output_gradient", "carried_gradient", "valid", "reset"},
    STATE: INSIDE_GRADIENTS | {"output_gradient", "carried_gradient", "valid", "reset"},
    WEIGHT: frozenset({"certificate", "weight_gradients"}),
}


# Powers of two change no digit; 2¹⁶ is what torch's GradScaler starts with.
_SCALES = (2.0**16, 2.0**10, 2.0**5, 2.0**-5, 1.0)


class Marks:
    """Makes marks of the kinds that the quantities need, and differentiates a loss with respect to them."""

    def __init__(self, quantities: frozenset[str]) -> None:
        self.is_open = True  # else marks are made in the same way, and none of them is known
        self._kinds = {kind for kind, needs in _NEEDED_FOR.items() if quantities & needs}
        self._marks: list[torch.Tensor] = []

    def __call__(self, kind: str, tensor: torch.Tensor) -> torch.Tensor:
        """Mark a tensor; the tensor itself where no gradient of its kind is needed, or there is none."""
        if kind not in self._kinds or not tensor.is_floating_point():
            return tensor
        # A tensor without a history becomes a new leaf: the caller's stays without gradient.
        source = tensor if tensor.requires_grad else tensor.detach().requires_grad_()
        mark = source.view_as(source)
        if self.is_open:
            self._marks.append(mark)
        return mark

    def has(self, kind: str) -> bool:
        """Whether gradients of a kind are needed."""
        return kind in self._kinds

    def differentiate(
        self,
        loss: torch.Tensor | None,
        parameters: Iterable[torch.Tensor],
        edges: Sequence[Place] = (),
        *,
        keep: bool = False,
    ) -> Gradients:
        """Differentiate with respect to every mark, parameters and edges of the graph, all at once.

        `keep` leaves the graph for what is asked later: what crosses from one mark to another. The loss is
        the one of training, because a hook may clip gradients: the mean over the batch is undone later.
        """
        sources: list[Place] = [
            *self._marks,
            *parameters,
            *(edges if self._kinds else ()),
        ]
        if loss is None or not loss.requires_grad or not sources:
            return Gradients({}, 1.0)
        # float16 ends where many gradients lie: they are taken of a scaled loss, as training takes them.
        scales = _SCALES if any(map(_is_half, sources)) else _SCALES[-1:]
        for scale in scales:
            start, is_last = torch.full_like(loss, scale), scale == scales[-1]
            kept = keep or not is_last
            found = torch.autograd.grad(loss, together(sources), start, retain_graph=kept, allow_unused=True)
            if is_last or all(gradient is None or bool(gradient.isfinite().all()) for gradient in found):
                break
        pairs = zip(sources, found, strict=True)
        known: dict[int, tuple[object, torch.Tensor]] = {
            id(one): (one, gradient) for one, gradient in pairs if gradient is not None
        }
        return Gradients(known, scale)


def together(places: Sequence[Place]) -> Sequence[torch.Tensor]:
    """Pass places of both kinds to torch, which takes them although its type hints do not."""
    return cast("Sequence[torch.Tensor]", places)


def _is_half(source: object) -> bool:
    return isinstance(source, torch.Tensor) and source.dtype == torch.float16


class Gradients:
    """Gradients of a scaled loss by the tensor they belong to, handed out unscaled; float16 as float32."""

    def __init__(self, found: dict[int, tuple[object, torch.Tensor]], scale: float) -> None:
        self._found, self._scale = found, scale

    def add(self, tensor: torch.Tensor, gradient: torch.Tensor) -> None:
        """Add what reaches a tensor on another way."""
        gradient = gradient * self._scale
        before = self._found.get(id(tensor))
        self._found[id(tensor)] = tensor, gradient if before is None else before[1] + gradient

    def put(self, place: Place, gradient: torch.Tensor) -> None:
        """Replace the gradient of the scaled loss at a place."""
        self._found[id(place)] = place, gradient

    def of(self, *tensors: Place | None) -> Array | None:
        """Sum the gradients of tensors of one shape, each once; None where the loss depends on none."""
        found = self.summed(tensors)
        return None if found is None else numpy(self.unscaled(found))

    def tensor(self, edge: object) -> torch.Tensor | None:
        """Return the gradient at an edge as it was found, of the scaled loss; None as in `of`."""
        pair = self._found.get(id(edge))
        return None if pair is None else pair[1]

    def summed(self, edges: Sequence[object]) -> torch.Tensor | None:
        """Sum what `tensor` returns over several edges of one shape, each once."""
        pairs = (self._found.get(key) for key in {id(edge): None for edge in edges})
        return sum_of(pair and pair[1] for pair in pairs)

    def unscaled(self, gradient: torch.Tensor) -> torch.Tensor:
        """Take the scale of the loss off, float16 as float32."""
        gradient = gradient.float() if gradient.dtype == torch.float16 else gradient
        return gradient if self._scale == 1.0 else gradient / self._scale


def sum_of(gradients: Iterable[Summand | None]) -> Summand | None:
    """Sum the gradients that exist; None where none does."""
    total = None
    for one in gradients:
        total = one if total is None else total if one is None else total + one
    return total


def without(gradient: torch.Tensor | None, part: torch.Tensor | None) -> torch.Tensor | None:
    """Take a part of a gradient away; what is left where that is all of it is rounding, and 0."""
    if gradient is None or part is None:
        return gradient
    rest, eps = gradient - part, torch.finfo(gradient.dtype).eps
    bar = (4 if gradient.dtype.itemsize == 2 else 64) * eps  # half precision has few digits
    return torch.where(rest.abs() <= bar * gradient.abs().amax(-1, keepdim=True), 0, rest)


def flattened(pair: tuple[torch.Tensor | None, torch.Tensor | None]) -> tuple[torch.Tensor, torch.Tensor]:
    """Flatten two gradients of one tensor, 0 where one does not exist; nothing where none does."""
    like = next((one for one in pair if one is not None), torch.empty(0))
    first, second = (torch.zeros_like(like) if one is None else one.flatten() for one in pair)
    return first.flatten(), second.flatten()
