"""Describes layers and captures: flags a reader of the tree needs, and layers that are not run."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from throughtime.adapters.axes import alignment
from throughtime.adapters.loss_reduction import attributes_of
from throughtime.adapters.records import Array, Attribute, LayerRecord, ModelRecord, to_snake_case

from . import structure, weights
from .find import Found, candidates, checked, selection
from .passes import Call
from .structure import name_of, numpy

_OTHER_TIME = (
    nn.Flatten,
    nn.Unflatten,
    nn.Upsample,
    nn.ConstantPad1d,
    nn.ReflectionPad1d,
    nn.ReplicationPad1d,
)
_POOLS = (nn.MaxPool1d, nn.AvgPool1d, nn.LPPool1d, nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d)


def of_layer(call: Call, frozen: Collection[int]) -> dict[str, Attribute]:
    """Read the flags of any layer; `frozen` are ids of weights that training leaves alone."""
    is_trained = not call.is_cut and all(id(one) not in frozen for one in call.entry.layer.parameters())
    flags = of_module(call.entry, trainable=is_trained)
    if call.output is not None:
        flags["dtype"] = call.autocast or structure.name_of(call.output.dtype)
    return flags


def of_module(entry: Found, *, trainable: bool) -> dict[str, Attribute]:
    """Name a layer and its class."""
    return {
        "layer_name": entry.name,
        "layer_class": entry.class_name,
        "trainable": int(trainable),
        "output_reversed": 0,
    }


def of_kind(module: Any, kind: str, activation: str) -> dict[str, Attribute]:
    """Read what only a recurrent layer or cell has."""
    flags: dict[str, Attribute] = {"units": module.hidden_size, "activation": activation}
    if kind != "simple_rnn":
        flags["recurrent_activation"] = "sigmoid"
    if kind == "gru":
        flags["reset_after"] = 1
    for name in ("num_layers", "batch_first", "proj_size"):
        if hasattr(module, name):
            flags[name] = int(getattr(module, name))
    if getattr(module, "bidirectional", False):
        flags["merge_mode"] = "concat"
    return flags


def of_framework() -> dict[str, Attribute]:
    """Name torch and its version."""
    return {"framework": "torch", "framework_version": str(torch.__version__)}


def of_capture(
    model: nn.Module, called: Sequence[str], absent: Sequence[str], reduced: tuple[float, str] | None
) -> dict[str, Attribute]:
    """Gather what holds for all layers; `called` are paths of leaves, `absent` of layers not called."""
    attributes = {**of_framework(), "order_of_calls": ", ".join(called), **attributes_of(reduced)}
    if absent:
        attributes["not_called"] = ", ".join(absent)
    normalizing = ((name, one) for name, one in model.named_modules() if isinstance(one, _BatchNorm))
    if coupling := [name for name, module in normalizing if module.training]:
        attributes["couples_samples"] = f"{', '.join(coupling)}: statistics of the batch in training"
    breaking = [name or "the model" for name, module in model.named_modules() if _breaks_time(module)]
    attributes["time"] = alignment(breaking)
    return attributes


def _breaks_time(module: nn.Module) -> bool:
    """Whether step t of the layer's output is not step t of its input."""
    if isinstance(module, (*_OTHER_TIME, *_POOLS, nn.ConvTranspose1d)):
        return True
    if not isinstance(module, nn.Conv1d):
        return False
    kernel, padding = module.dilation[0] * (module.kernel_size[0] - 1), module.padding
    keeps_length = padding == "same" or (padding != "valid" and 2 * padding[0] == kernel)
    return module.stride[0] != 1 or not keeps_length


_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")


def describe(model: nn.Module, layers: object) -> ModelRecord:
    """Read the layers as they are now that `layers` chooses, see `selection.Selection.select`."""
    known = selection(checked(model))
    found = known.select(layers)
    if not found and not candidates(checked(model), (), is_open=True):
        known.refuse()
    with torch.no_grad():
        leaves = tuple(leaf for entry in found for leaf in _leaves(entry))
    return ModelRecord(leaves, of_framework())


def _leaves(entry: Found) -> list[LayerRecord]:
    """One leaf for a layer or cell; one for each of several inner layers."""
    if not entry.is_recurrent:
        return [_plain(entry)]
    module: Any = entry.layer
    if isinstance(module, nn.RNNCellBase):
        return [_recurrent(entry, entry.path, [_by_order(module, "")])]
    places = range(module.num_layers) if entry.inner is None else [entry.inner]
    ends = ("", "_reverse") if module.bidirectional else ("",)
    leaves = []
    for place in places:
        path = f"{entry.path}/{place}" if entry.inner is None and module.num_layers > 1 else entry.path
        leaves.append(_recurrent(entry, path, [_by_order(module, f"_l{place}{end}") for end in ends]))
    return leaves


def _by_order(module: nn.Module, suffix: str) -> list[Array]:
    """Read the weights of one direction in torch's order."""
    present = [getattr(module, name + suffix, None) for name in _NAMES]
    return [numpy(weight.detach(), copy=True) for weight in present if weight is not None]


def _recurrent(entry: Found, path: str, directions: Sequence[Sequence[Array]]) -> LayerRecord:
    kind = weights.kind_of(entry.layer)
    activation = str(getattr(entry.layer, "nonlinearity", "tanh"))
    each = [weights.oriented(kind, arrays) for arrays in directions]
    both = len(each) > 1
    return LayerRecord(
        path=path,
        kind=kind,
        arrays={name: np.stack([one[name] for one in each]) for name in each[0]} if both else each[0],
        directions=("forward", "backward") if both else (),
        flags={**_flags(entry), **of_kind(entry.layer, kind, activation)},
        dims=weights.projected_dims(both) if weights.PROJECTION in each[0] else {},
    )


def _plain(entry: Found) -> LayerRecord:
    own = {name: numpy(weight.detach(), copy=True) for name, weight in weights.by_name(entry.layer).items()}
    return LayerRecord(
        entry.path if not entry.is_container else f"{entry.path}@1",
        to_snake_case(entry.class_name),
        own,
        flags=_flags(entry),
    )


def _flags(entry: Found) -> dict[str, Attribute]:
    parameters = list(entry.layer.parameters())
    flags = of_module(entry, trainable=all(weight.requires_grad for weight in parameters))
    if parameters:
        flags["dtype"] = name_of(parameters[0].dtype)
    return flags
