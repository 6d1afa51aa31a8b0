"""Runs a module as its signature takes the batch, and evaluates its loss."""

import inspect
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from copy import copy
from functools import partial
from itertools import islice

import numpy as np
import torch
from torch import nn

from throughtime._common.memory.budget import Budget
from throughtime._errors import LossError
from throughtime.adapters import loss_reduction
from throughtime.adapters.loss_reduction import Loss, evaluated, weighted
from throughtime.adapters.records import ONE_SAMPLE, Array

from . import find, structure
from .restore import gradients_on, stand_in, untouched
from .structure import Data, Samples, axes_of, rows_of
from .tap import Recorder


def labels_beside(
    model: nn.Module, y: object, sample_weight: object, output: object, recorder: Recorder
) -> tuple[object, torch.Tensor | None]:
    """Bring labels to where the output is; weights must count the model's samples."""
    first = next(iter(structure.tensors(output)), None)
    device, dtype = place(model)
    if first is not None:
        device, dtype = first.device, first.dtype if first.is_floating_point() else dtype
    labels, weight = structure.copied(y, device, dtype), structure.copied(sample_weight, device, dtype)
    if isinstance(weight, Mapping):
        raise LossError(
            f"sample_weight is a {type(sample_weight).__name__} with {', '.join(map(repr, weight))}: a torch "
            "loss takes one array, a weight for each sample, or for each sample and step."
        )
    if weight is not None and (recorder.time_major or len(weight) not in recorder.sizes):
        where = " on the second axis of x" if recorder.time_major else ""
        raise LossError(
            f"sample_weight has shape {tuple(weight.shape)}, and the model reads {recorder.sizes[0]} samples"
            f"{where}: both have to be on the first axis, as with batch_first=True."
        )
    return labels, weight


def autocast_off(output: object) -> AbstractContextManager[None]:
    """Switch autocast off where an output is."""
    kinds = {tensor.device.type for tensor in structure.tensors(output)} or {"cpu"}
    return torch.autocast(kinds.pop(), enabled=False)


def call(model: nn.Module, x: object) -> object:
    """Call a model as its signature takes the batch: a dict by names, a tuple as several arguments."""
    if isinstance(x, Mapping) and _fits(model, (), x):
        return model(**x)
    if isinstance(x, (tuple, list)) and not structure.is_packed(x) and _fits(model, x, {}):
        return model(*x)
    return model(x)


def _fits(model: nn.Module, arguments: Sequence[object], keywords: Mapping[str, object]) -> bool:
    try:
        inspect.signature(model.forward).bind(*arguments, **keywords)
    except TypeError:
        return False
    return True


def place(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device and precision of a model, by its first floating-point tensor."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            return tensor.device, tensor.dtype
    return torch.device("cpu"), torch.get_default_dtype()


check_loss = partial(loss_reduction.check_loss, model="torch module", example="torch.nn.MSELoss()")


def total(loss: Loss, output: object, y: object, sample_weight: torch.Tensor | None) -> torch.Tensor:
    """Evaluate the scalar loss of a batch, or raise LossError; values per sample are averaged."""
    alone, is_sum = _unreduced(loss) if sample_weight is not None else (loss, False)
    value = evaluated(alone, output, y, structure.shapes)
    if not isinstance(value, torch.Tensor) or value.is_complex() or not value.is_floating_point():
        what = f"a tensor of {value.dtype}" if isinstance(value, torch.Tensor) else type(value).__name__
        raise LossError(f"The loss must return a real floating-point tensor; it returned {what}.")
    if sample_weight is not None:
        if value.ndim < sample_weight.ndim == 2:
            value = _of_steps(alone, (output, y), sample_weight, value)
        value = weighted(value, sample_weight.to(value))
    found: torch.Tensor = value.sum() if is_sum else value.mean()
    return found


def _unreduced(loss: Loss) -> tuple[Loss, bool]:
    """Copy a loss module of torch so that it has a value per sample or step; and whether it is their sum."""
    reduction = getattr(loss, "reduction", None)
    if not isinstance(loss, torch.nn.Module) or reduction not in ("mean", "sum"):
        return loss, False
    alone = copy(loss)
    object.__setattr__(alone, "reduction", "none")
    return alone, reduction == "sum"


def _of_steps(loss: Loss, data: Data, weight: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """Evaluate each step with a weight alone, (sample, time), if a loss averages or adds steps; else `whole`.

    A step without a label, where the mean over labels is not finite, has a loss of 0.
    """

    def has_steps(leaf: object) -> bool:
        return isinstance(leaf, torch.Tensor) and leaf.shape[:2] == weight.shape

    def alone(sample: int, *steps: int) -> torch.Tensor:
        rows = slice(sample, sample + 1), list(steps)
        output, y = structure.mapped(lambda leaf: leaf[rows] if has_steps(leaf) else leaf, data)
        mean: torch.Tensor = evaluated(loss, output, y, structure.shapes).mean()
        return mean

    def together(*rows: int) -> float:
        return float(alone(0, *(tried[row] for row in rows)))

    if not all(any(map(has_steps, structure.leaves(part))) for part in data):
        return whole
    values = torch.zeros_like(weight, dtype=whole.dtype)
    try:
        with torch.no_grad():
            known = (step for step in reversed(range(weight.shape[1])) if alone(0, step).isfinite())
            tried = list(islice(known, 2))
            if len(tried) > 1:
                adds_up = not loss_reduction.of_loss(loss_reduction.tried_factor(together, 2, ())[1])
            else:  # the only label of a sample, or none
                only, all_steps = together(0) if tried else math.nan, alone(0, *range(weight.shape[1]))
                adds_up = bool(np.isclose(only, float(all_steps), rtol=1e-4, equal_nan=True))
        for sample, step in weight.nonzero().tolist():
            value = alone(sample, step)
            values[sample, step] = value if value.isfinite() else 0
    except LossError:  # it takes no single step
        return whole
    return values if adds_up else whole


def tried_factor(loss: Loss, data: Data, sizes: Sequence[int]) -> tuple[float, str]:
    """Find what the loss multiplies a sample's own gradient by, and name how it reduces samples.

    `data` are output, labels and weights of samples; `sizes` the numbers of samples that there may be, the
    likeliest first. They are looked for on the first two axes of every tensor.
    """
    if sizes[0] == 1:
        return 1.0, ONE_SAMPLE
    size = next((size for size in sizes if _have(data[0], size)), 0)
    if not size:
        return 1.0, f"not known: no output has an axis of {sizes[0]} samples, {loss_reduction.UNDONE}"
    # Where steps and samples are equally many, both axes have to give the same result.
    sides = (axes_of(data, Samples(size, are_last=last).axis) for last in (False, True))
    found = {_tried(loss, data, size, axes) for axes in set(map(tuple, sides))}
    if len(found) > 1:
        return 1.0, f"not known: samples and steps are equally many, {loss_reduction.UNDONE}"
    return found.pop()


def _have(output: object, size: int) -> bool:
    return any(Samples(size).axis(tensor) is not None for tensor in structure.tensors(output))


def _tried(loss: Loss, data: Data, size: int, axes: Sequence[int | None]) -> tuple[float, str]:
    def loss_of(*rows: int) -> float:
        return float(total(loss, *rows_of(data, rows, axes)))

    with torch.no_grad(), autocast_off(data[0]):
        return loss_reduction.tried_factor(loss_of, size, (RuntimeError, ValueError, IndexError))


def losses(
    model: nn.Module, x: object, y: object, sample_weight: object, *, loss: Loss, training: bool
) -> Array:
    """Evaluate what each sample loses alone, (sample) in float64; LossError if it fails on single samples."""
    model = find.checked(model)
    check_loss(loss)
    kept = untouched(model, loss)
    with kept, kept, gradients_on(), torch.no_grad():
        stand_in(model, loss, [], training=training)
        inputs = structure.copied(x, *place(model))
        recorder = Recorder([], [], frozenset(), inputs, Budget(None, 1, 1))
        recorder.watch(model)
        output = call(model, inputs)
        labels = labels_beside(model, y, sample_weight, output, recorder)
        recorder.close()
        size = recorder.sizes[0]
        data = output, *labels
        if size > 1 and not _have(output, size):
            raise LossError(
                f"No output of the model has an axis of {size} samples. Return one with samples first."
            )
        axes = axes_of(data, Samples(size).axis)
        with autocast_off(output):
            return np.array([float(total(loss, *rows_of(data, (row,), axes))) for row in range(size)])
