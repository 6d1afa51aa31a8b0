"""Marked copies of tensors: the gradient with respect to a mark is the gradient through that one use.

A mark shares memory with its tensor and is never handed to a user's code, which could write on it.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from throughtime._record import Array

from .structure import numpy

INPUT, OUTPUT, STATE, WEIGHT = "input", "output", "state", "weight"
_INSIDE = frozenset(
    {
        "hidden_gradient",
        "cell_gradient",
        "gate_gradient",
        "initial_hidden_gradient",
        "initial_cell_gradient",
        "step_contribution",
        "certificate",
    }
)
_NEEDED_FOR = {
    INPUT: frozenset({"input_gradient", "certificate"}),
    OUTPUT: _INSIDE | {"output_gradient"},
    STATE: _INSIDE | {"output_gradient"},
    WEIGHT: frozenset({"certificate", "weight_gradients"}),
}


class Marks:
    """Makes marks of the kinds that the quantities need, and differentiates a loss with respect to them all.

    Parameters
    ----------
    quantities : frozenset of str
        What was asked for; none of the gradients where there are no labels.
    """

    def __init__(self, quantities: frozenset[str]) -> None:
        self._quantities = quantities
        self._kinds = {kind for kind, needs in _NEEDED_FOR.items() if quantities & needs}
        self._marks: list[torch.Tensor] = []

    def anew(self) -> Marks:
        """Make marks in the same way, none of them known here."""
        return Marks(self._quantities)

    def __call__(self, kind: str, tensor: torch.Tensor) -> torch.Tensor:
        """Mark a tensor; the tensor itself where no gradient of its kind is needed, or there is none."""
        if kind not in self._kinds or not tensor.is_floating_point():
            return tensor
        # A tensor without a history becomes a leaf of its own: the caller's stays without gradient.
        source = tensor if tensor.requires_grad else tensor.detach().requires_grad_()
        mark = source.view_as(source)
        self._marks.append(mark)
        return mark

    def differentiate(self, loss: torch.Tensor | None, parameters: Iterable[torch.Tensor]) -> Gradients:
        """Differentiate with respect to every mark and to the parameters given, all at once."""
        sources = [*self._marks, *parameters]
        if loss is None or not loss.requires_grad or not sources:
            return Gradients({})
        found = torch.autograd.grad(loss, sources, allow_unused=True)
        pairs = zip(sources, found, strict=True)
        return Gradients(
            {id(source): (source, gradient) for source, gradient in pairs if gradient is not None}
        )


class Gradients:
    """Gradients by the tensor they belong to."""

    def __init__(self, found: dict[int, tuple[torch.Tensor, torch.Tensor]]) -> None:
        self._found = found

    def of(self, tensor: torch.Tensor) -> Array | None:
        """Return dL/dtensor; None where the loss does not depend on it, or it was not asked for."""
        pair = self._found.get(id(tensor))
        return None if pair is None else numpy(pair[1])

    def total(self, tensors: Iterable[torch.Tensor]) -> Array | None:
        """Sum the gradients of several tensors of one shape; None where none has one."""
        known = [gradient for gradient in map(self.of, tensors) if gradient is not None]
        return sum(known[1:], known[0]) if known else None
