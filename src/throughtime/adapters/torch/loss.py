"""The one number that is differentiated, and what it does to each sample's share of it.

A loss is any callable `(output, y)`; how it treats samples is found by trying, on two of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch

from throughtime._errors import LossError, ThroughTimeError
from throughtime.adapters import loss_reduction
from throughtime.adapters.records import ONE_SAMPLE

from . import structure

Evaluate = Callable[[Any, "Labels"], torch.Tensor]


@dataclass(frozen=True)
class Labels:
    """What the loss compares outputs with: a structure of tensors, and a tensor of weights or None."""

    y: Any
    sample_weight: torch.Tensor | None


def check_loss(loss: Any) -> None:
    """Refuse what is no loss.

    Raises
    ------
    LossError
    """
    if loss is None:
        raise LossError(
            "A torch module does not contain a loss. Pass loss=, a function (output, y) that returns a "
            "scalar or one value per sample, such as torch.nn.MSELoss()."
        )
    if not callable(loss):
        raise LossError(
            f"loss= takes a function (output, y) or a loss module of torch.nn, not {type(loss).__name__}."
        )


def total(loss: Any, output: Any, labels: Labels) -> torch.Tensor:
    """Evaluate the scalar loss of a batch; values per sample are averaged.

    Raises
    ------
    LossError
    """
    alone, is_sum = _unreduced(loss) if labels.sample_weight is not None else (loss, False)
    try:
        value = alone(output, labels.y)
    except ThroughTimeError:
        raise
    except Exception as error:
        raise LossError(
            f"The loss could not be evaluated: {type(error).__name__}: {error}\n"
            f"It is called as loss(output, y). The output has shape {structure.shapes(output)}, y "
            f"{structure.shapes(labels.y)}."
        ) from error
    if not isinstance(value, torch.Tensor) or value.is_complex() or not value.is_floating_point():
        what = f"a tensor of {value.dtype}" if isinstance(value, torch.Tensor) else type(value).__name__
        raise LossError(f"The loss must return a real floating-point tensor; it returned {what}.")
    if labels.sample_weight is not None:
        value = _weighted(value, labels.sample_weight)
    if value.ndim == 0:
        return value
    return value.sum() if is_sum else value.mean()


def _unreduced(loss: Any) -> tuple[Any, bool]:
    """Copy a loss module of torch so that it has a value per sample or step; and whether it is their sum."""
    reduction = getattr(loss, "reduction", None)
    if not isinstance(loss, torch.nn.Module) or reduction not in ("mean", "sum"):
        return loss, False
    alone = copy(loss)
    alone.reduction = "none"
    return alone, reduction == "sum"


def _weighted(value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    if value.ndim == 0:
        raise LossError(
            "sample_weight needs a loss that returns one value per sample, as torch's losses do with "
            'reduction="none"; this loss= returned a scalar.'
        )
    if tuple(value.shape[: weight.ndim]) != tuple(weight.shape):
        raise LossError(
            f"sample_weight has shape {tuple(weight.shape)}, the values of the loss {tuple(value.shape)}: "
            "their first axes must agree. Weights for each step need a loss with a value for each sample and "
            'step, such as nn.MSELoss(reduction="none").'
        )
    return value * weight.to(value).reshape(*weight.shape, *(1,) * (value.ndim - weight.ndim))


def tried_factor(evaluate: Evaluate, output: Any, labels: Labels, sizes: Sequence[int]) -> tuple[float, str]:
    """Find what the loss multiplies a sample's own gradient by, and say in words how it reduces samples.

    The loss of two samples together is compared with that of each alone.

    Parameters
    ----------
    evaluate : callable (output, labels) -> scalar tensor
    sizes : sequence of int
        Numbers of samples that there may be, the likeliest first; they are looked for on the first two axes
        of every tensor.
    """
    if sizes[0] == 1:
        return 1.0, ONE_SAMPLE
    outputs = structure.tensors(output)
    fitting = [size for size in sizes if any(_axes(tensor, size) for tensor in outputs)]
    if not fitting:
        return 1.0, f"not known: no output has an axis of {sizes[0]} samples, {loss_reduction.UNDONE}"
    size, parts = fitting[0], (output, labels.y, labels.sample_weight)
    sides = [_axes(tensor, size) for tensor in structure.tensors(parts)]
    # Where steps and samples are equally many, both axes have to say the same.
    orders = (0, -1) if any(len(axes) > 1 for axes in sides) else (0,)
    found = {_tried(evaluate, parts, size, order) for order in orders}
    if len(found) > 1:
        return 1.0, f"not known: samples and steps are equally many, {loss_reduction.UNDONE}"
    return found.pop()


def _tried(evaluate: Evaluate, parts: Any, size: int, order: int) -> tuple[float, str]:
    def loss_of(*rows: int) -> float:
        output, y, weight = structure.mapped(lambda leaf: samples_of(leaf, size, rows, order), parts)
        return float(evaluate(output, Labels(y, weight)))

    with torch.no_grad():
        return loss_reduction.tried_factor(loss_of, size, (RuntimeError, ValueError, IndexError))


def _axes(tensor: torch.Tensor, size: int) -> list[int]:
    return [axis for axis, length in enumerate(tensor.shape[:2]) if length == size]


def samples_of(leaf: Any, size: int, rows: tuple[int, ...], order: int) -> Any:
    """Take some samples of a leaf, in single precision at least; all of what has no axis of samples."""
    if structure.is_packed(leaf):
        return structure.packed_samples(leaf, rows)
    if not isinstance(leaf, torch.Tensor):
        return leaf
    leaf = leaf.detach()
    if leaf.dtype in (torch.float16, torch.bfloat16):
        leaf = leaf.float()
    axes = _axes(leaf, size)
    return leaf.index_select(axes[order], torch.tensor(rows, device=leaf.device)) if axes else leaf
