"""Runs a torch module once on a batch and returns what was asked for; nothing is kept between batches."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from throughtime._errors import AmbiguousLayerError, LossError
from throughtime._record import ModelRecord, Request

from . import collect, find, structure
from .finished import Pass
from .loss import Labels, check_loss, total, tried_factor
from .marks import Marks
from .restore import stand_in, untouched
from .tap import Recorder


class Probe:
    """Captures chosen layers of one torch module.

    Parameters
    ----------
    model : nn.Module
        A compiled or parallel one is unwrapped; nothing of it stays changed.
    loss : callable (output, y) returning a scalar or one value per sample, or None
    layers : see `selection.Selection.select`
    request : Request

    Raises
    ------
    UnsupportedModelError, UnbuiltModelError, LayerNotFoundError
    """

    def __init__(self, model: Any, *, loss: Any, layers: Any, request: Request) -> None:
        self.model = find.checked(model)
        self.loss = loss
        self.request = request
        self.found = find.selection(self.model).select(layers)

    def __call__(self, x: Any, y: Any, sample_weight: Any) -> ModelRecord:
        """Capture one batch. Structures of arrays; y None for a capture without gradients."""
        if y is not None:
            check_loss(self.loss)
        with untouched(self.model, self.loss):
            return self._captured(x, y, sample_weight)

    def expect_one_layer(self) -> None:
        """Refuse several layers where one is meant."""
        if len(self.found) > 1:
            paths = ", ".join(entry.path for entry in self.found)
            raise AmbiguousLayerError(
                f"The model has {len(self.found)} recurrent layers, {paths}: choose one with layer_name= or "
                f"layer_idx=.\n{find.listing(self.model)}"
            )

    def _captured(self, x: Any, y: Any, sample_weight: Any) -> ModelRecord:
        has_labels = y is not None
        wanted = self.request.quantities - (frozenset() if has_labels else self.request.gradients)
        watched = [entry.layer for entry in self.found]
        frozen = [id(weight) for weight in self.model.parameters() if not weight.requires_grad]
        stand_ins = stand_in(self.model, self.loss, watched, training=self.request.training)
        device, dtype = _place(self.model)
        inputs = structure.own(x, device, dtype)
        marks = Marks(wanted)
        recorder = Recorder(self.found, marks, inputs)
        recorder.watch(self.model)
        output = _called(self.model, inputs)
        loss = reduced = None
        if has_labels:
            labels = self._labels(y, sample_weight, output, recorder)
            loss = total(self.loss, output, labels)
        recorder.close()
        weights = _weights(watched) if "weight_gradients" in wanted else []
        gradients = marks.differentiate(loss, weights)
        if has_labels:
            reduced = self._reduced(output, labels, recorder)
        done = Pass(
            model=self.model,
            found=self.found,
            calls=recorder.calls,
            gradients=gradients,
            wanted=wanted,
            stand_ins={id(weight) for weight in stand_ins.values()},
            frozen={id(stand_ins[weight]) for weight in frozen if weight in stand_ins},
            has_labels=has_labels,
            time_major=recorder.time_major,
        )
        value = None if loss is None else float(loss.detach())
        return collect.records(done, value, reduced, training=self.request.training)

    def _labels(self, y: Any, sample_weight: Any, output: Any, recorder: Recorder) -> Labels:
        """Bring labels to where the output is; weights must count the model's samples."""
        first = next(iter(structure.tensors(output)), None)
        device, dtype = _place(self.model)
        if first is not None:
            device, dtype = first.device, first.dtype if first.is_floating_point() else dtype
        labels, weight = structure.own(y, device, dtype), structure.own(sample_weight, device, dtype)
        if weight is not None and (recorder.time_major or len(weight) not in recorder.sizes):
            place = " on the second axis of x" if recorder.time_major else ""
            raise LossError(
                f"sample_weight has shape {tuple(weight.shape)}, the model reads {recorder.sizes[0]} samples"
                f"{place}: both have to be on the first axis, as with batch_first=True."
            )
        return Labels(labels, weight)

    def _reduced(self, output: Any, labels: Labels, recorder: Recorder) -> tuple[float, str]:
        evaluate = partial(total, self.loss)
        kinds = {tensor.device.type for tensor in structure.tensors(output)} or {"cpu"}
        with torch.autocast(kinds.pop(), enabled=False):
            return tried_factor(evaluate, output, labels, recorder.sizes)


def _called(model: Any, x: Any) -> Any:
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


def _weights(watched: list[Any]) -> list[torch.Tensor]:
    """Give the parameters of the watched layers that have a gradient, each once."""
    parameters = {id(weight): weight for module in watched for weight in module.parameters()}
    return [weight for weight in parameters.values() if weight.requires_grad]


def _place(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device and precision of a model, by its first floating-point tensor."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            return tensor.device, tensor.dtype
    return torch.device("cpu"), torch.get_default_dtype()
