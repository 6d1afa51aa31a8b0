"""Runs a module as its signature takes the batch, and brings labels to where its output is."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from throughtime._errors import LossError

from . import structure
from .tap import Recorder


def labels_beside(model: Any, y: Any, sample_weight: Any, output: Any, recorder: Recorder) -> tuple[Any, Any]:
    """Bring labels to where the output is; weights must count the model's samples."""
    first = next(iter(structure.tensors(output)), None)
    device, dtype = place(model)
    if first is not None:
        device, dtype = first.device, first.dtype if first.is_floating_point() else dtype
    labels, weight = structure.own(y, device, dtype), structure.own(sample_weight, device, dtype)
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


def autocast_off(output: Any) -> Any:
    """Switch autocast off where an output is."""
    kinds = {tensor.device.type for tensor in structure.tensors(output)} or {"cpu"}
    return torch.autocast(kinds.pop(), enabled=False)


def called(model: Any, x: Any) -> Any:
    """Call a model as its signature takes the batch: a dict by names, a tuple as several arguments."""
    if isinstance(x, Mapping) and _fits(model, (), x):
        return model(**x)
    if isinstance(x, (tuple, list)) and not structure.is_packed(x) and _fits(model, x, {}):
        return model(*x)
    return model(x)


def _fits(model: Any, arguments: Any, keywords: Any) -> bool:
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
