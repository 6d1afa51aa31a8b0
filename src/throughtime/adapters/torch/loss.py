"""The one number that is differentiated, what it does to each sample's share of it, what each sample loses.

A loss is any callable `(output, y)`; how it treats samples is found by trying, on two of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import partial
from typing import Any

import numpy as np
import torch

from throughtime._errors import LossError
from throughtime._memory.budget import Budget
from throughtime.adapters import loss_reduction
from throughtime.adapters.loss_reduction import evaluated, weighted
from throughtime.adapters.records import ONE_SAMPLE, Array

from . import find, structure
from .forward import autocast_off, called, labels_beside, place
from .marks import Marks
from .meter import Meter
from .restore import gradients_on, stand_in, untouched
from .samples import axes_of, rows_of
from .tap import Recorder

_NOTHING: frozenset[str] = frozenset()


check_loss = partial(loss_reduction.check_loss, model="torch module", example="torch.nn.MSELoss()")


def total(loss: Any, output: Any, y: Any, sample_weight: torch.Tensor | None) -> torch.Tensor:
    """Evaluate the scalar loss of a batch, or raise LossError; values per sample are averaged."""
    alone, is_sum = _unreduced(loss) if sample_weight is not None else (loss, False)
    value = evaluated(alone, output, y, structure.shapes)
    if not isinstance(value, torch.Tensor) or value.is_complex() or not value.is_floating_point():
        what = f"a tensor of {value.dtype}" if isinstance(value, torch.Tensor) else type(value).__name__
        raise LossError(f"The loss must return a real floating-point tensor; it returned {what}.")
    if sample_weight is not None:
        value = weighted(value, sample_weight.to(value))
    return value.sum() if is_sum else value.mean()


def _unreduced(loss: Any) -> tuple[Any, bool]:
    """Copy a loss module of torch so that it has a value per sample or step; and whether it is their sum."""
    reduction = getattr(loss, "reduction", None)
    if not isinstance(loss, torch.nn.Module) or reduction not in ("mean", "sum"):
        return loss, False
    alone = copy(loss)
    alone.reduction = "none"
    return alone, reduction == "sum"


def tried_factor(loss: Any, data: tuple[Any, ...], sizes: Sequence[int]) -> tuple[float, str]:
    """Find what the loss multiplies a sample's own gradient by, and name how it reduces samples.

    `data` are output, labels and weights of samples; `sizes` the numbers of samples that there may be, the
    likeliest first. They are looked for on the first two axes of every tensor.
    """
    if sizes[0] == 1:
        return 1.0, ONE_SAMPLE
    outputs = structure.tensors(data[0])
    fitting = [size for size in sizes if any(_axes(tensor, size) for tensor in outputs)]
    if not fitting:
        return 1.0, f"not known: no output has an axis of {sizes[0]} samples, {loss_reduction.UNDONE}"
    sides = [_axes(tensor, fitting[0]) for tensor in structure.tensors(data)]
    # Where steps and samples are equally many, both axes have to say the same.
    orders = (0, -1) if any(len(axes) > 1 for axes in sides) else (0,)
    found = {_tried(loss, data, fitting[0], order) for order in orders}
    if len(found) > 1:
        return 1.0, f"not known: samples and steps are equally many, {loss_reduction.UNDONE}"
    return found.pop()


def _tried(loss: Any, data: tuple[Any, ...], size: int, order: int) -> tuple[float, str]:
    axes = axes_of(data, lambda tensor: _axis(tensor, size, order))

    def loss_of(*rows: int) -> float:
        return float(total(loss, *rows_of(data, rows, axes)))

    with torch.no_grad(), autocast_off(data[0]):
        return loss_reduction.tried_factor(loss_of, size, (RuntimeError, ValueError, IndexError))


def _axes(tensor: torch.Tensor, size: int) -> list[int]:
    return [axis for axis, length in enumerate(tensor.shape[:2]) if length == size]


def _axis(tensor: torch.Tensor, size: int, order: int) -> int | None:
    axes = _axes(tensor, size)
    return axes[order] if axes else None


def losses(model: Any, x: Any, y: Any, sample_weight: Any, *, loss: Any, training: bool) -> Array:
    """Evaluate what each sample loses alone, (sample) in float64; LossError if it fails on single samples."""
    model = find.checked(model)
    check_loss(loss)
    kept = untouched(model, loss)
    with kept, kept, gradients_on(), torch.no_grad():
        stand_in(model, loss, [], training=training)
        device, dtype = place(model)
        inputs = structure.own(x, device, dtype)
        recorder = Recorder([], [], Marks(_NOTHING), inputs, Meter(Budget(None, 1, 1), _NOTHING))
        recorder.watch(model)
        output = called(model, inputs)
        labels = labels_beside(model, y, sample_weight, output, recorder)
        recorder.close()
        size = recorder.sizes[0]
        data = output, *labels
        axes = axes_of(data, lambda tensor: _axis(tensor, size, 0))
        with autocast_off(output):
            return np.array([float(total(loss, *rows_of(data, (row,), axes))) for row in range(size)])
