"""What `throughtime.mark` names while a module runs, as `tap` notes it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.autograd.graph import GradientEdge, get_gradient_edge


@dataclass(eq=False)
class Named:
    """A tensor that has a name, and the edge of the copy that the code goes on with."""

    name: str
    plain: torch.Tensor
    edge: GradientEdge | None


def named(name: str, tensor: torch.Tensor) -> tuple[Named, torch.Tensor]:
    """Note a tensor, and make the copy that takes its place."""
    if not tensor.is_floating_point():
        return Named(name, tensor, None), tensor
    source = tensor
    if torch.is_grad_enabled() and not tensor.requires_grad:
        source = tensor.detach().requires_grad_()
    copy = source.clone()
    return Named(name, tensor, get_gradient_edge(copy) if copy.grad_fn is not None else None), copy
