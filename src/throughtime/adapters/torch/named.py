"""What `throughtime.mark` names while a module runs: noted by `tap`, read for the steps of a recurrence."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.autograd.graph import GradientEdge, get_gradient_edge

from throughtime.adapters.marking import MarkedSteps, of_steps
from throughtime.adapters.records import Array


@dataclass(eq=False)
class Named:
    """A tensor that has a name, and the edge of the copy that the code goes on with."""

    name: str
    plain: torch.Tensor
    edge: GradientEdge | None


class Step(Protocol):
    """One step of a recurrence."""

    @property
    def named(self) -> Mapping[str, Named]:
        """What was named during the step."""


def named(name: str, tensor: torch.Tensor) -> tuple[Named, torch.Tensor]:
    """Note a tensor, and make the copy that takes its place."""
    if not tensor.is_floating_point():
        return Named(name, tensor, None), tensor
    source = tensor
    if torch.is_grad_enabled() and not tensor.requires_grad:
        source = tensor.detach().requires_grad_()
    copy = source.clone()
    return Named(name, tensor, get_gradient_edge(copy) if copy.grad_fn is not None else None), copy


def of_recurrence(
    steps: Sequence[Step],
    series: Callable[[Iterable[torch.Tensor]], Array],
    summed: Callable[[Iterable[Sequence[Any]], Array], Array | None],
    taken: Collection[str],
    *,
    has_gradients: bool,
) -> MarkedSteps:
    """Read what every step of a recurrence names, in one shape.

    Parameters
    ----------
    series : callable (tensors of the steps) -> ndarray (sample, time, …)
    summed : callable (edges of each step, values) -> ndarray or None
        The gradients at them.
    taken, has_gradients
        As `of_steps` has them.
    """
    each = [step.named for step in steps]
    shapes = {name: {one[name].plain.shape for one in each if name in one} for name in each[0]}
    names = [name for name in each[0] if len(shapes[name]) == 1 and all(name in one for one in each)]
    values = {name: series(one[name].plain for one in each) for name in names}
    gradients = {name: summed([[one[name].edge] for one in each], values[name]) for name in names}
    return of_steps(values, gradients, taken, has_gradients=has_gradients)
