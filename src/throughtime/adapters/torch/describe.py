"""Describes layers without running the module: their weights and flags, one record a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from throughtime.adapters.records import Array, Attribute, LayerRecord, ModelRecord

from . import settings, weights
from .find import Found, candidates, checked, selection, to_snake_case
from .structure import name_of, numpy

_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")


def describe(model: Any, layers: Any) -> ModelRecord:
    """Read the layers as they are now that `layers` chooses, see `selection.Selection.select`."""
    known = selection(checked(model))
    found = known.select(layers)
    if not found and not candidates(checked(model), (), is_open=True):
        known.refuse()
    with torch.no_grad():
        leaves = tuple(leaf for entry in found for leaf in _leaves(entry))
    return ModelRecord(leaves, settings.of_framework())


def _leaves(entry: Found) -> list[LayerRecord]:
    """One leaf for a layer or cell; one for each of several inner layers."""
    if not entry.is_recurrent:
        return [_plain(entry)]
    module = entry.layer
    if isinstance(module, nn.RNNCellBase):
        return [_recurrent(entry, entry.path, [_by_order(module, "")])]
    places = range(module.num_layers) if entry.inner is None else [entry.inner]
    ends = ("", "_reverse") if module.bidirectional else ("",)
    leaves = []
    for place in places:
        path = f"{entry.path}/{place}" if entry.inner is None and module.num_layers > 1 else entry.path
        leaves.append(_recurrent(entry, path, [_by_order(module, f"_l{place}{end}") for end in ends]))
    return leaves


def _by_order(module: Any, suffix: str) -> list[Array]:
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
        flags={**_flags(entry), **settings.of_kind(entry.layer, kind, activation)},
        dims=weights.projected_dims(both) if weights.PROJECTION in each[0] else {},
    )


def _plain(entry: Found) -> LayerRecord:
    own = {name: numpy(weight.detach(), copy=True) for name, weight in weights.own(entry.layer).items()}
    return LayerRecord(
        entry.path if not entry.is_container else f"{entry.path}@1",
        to_snake_case(entry.class_name),
        own,
        flags=_flags(entry),
    )


def _flags(entry: Found) -> dict[str, Attribute]:
    parameters = list(entry.layer.parameters())
    flags = settings.of_module(entry, trainable=all(weight.requires_grad for weight in parameters))
    if parameters:
        flags["dtype"] = name_of(parameters[0].dtype)
    return flags
