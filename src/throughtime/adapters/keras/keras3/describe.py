"""Describes layers without running the model: their weights, flags and penalties, one record a layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from throughtime._record import Array, LayerRecord, ModelRecord

from . import find, settings, weights
from .arrays import numpy
from .attributes import of_framework
from .inside import halves
from .leaf_parts import READING
from .models import check_model


def describe(model: Any, layers: Any) -> ModelRecord:
    """Read chosen layers as they are now.

    Parameters
    ----------
    model : keras.Model or keras.layers.Layer
        Built.
    layers : see `find.select`
    """
    check_model(model)
    leaves = tuple(leaf for entry in find.select(model, layers) for leaf in _leaves(entry))
    return ModelRecord(leaves, of_framework())


def _leaves(entry: find.Found) -> tuple[LayerRecord, ...]:
    """One leaf for a layer; several where it holds stacked cells, or two halves that differ."""
    layer = entry.layer
    each, penalties = halves(layer), _penalties(layer)
    whole = LayerRecord(
        path=f"{entry.path}@1" if entry.is_container else entry.path,
        kind=weights.kind(layer),
        arrays={**weights.named(layer, _value), **penalties},
        directions=weights.directions(layer),
        flags=settings.of_layer(layer),
        dims={name: ("direction",) for name in penalties if weights.directions(layer)},
    )
    if not isinstance(each[0], keras.layers.RNN):
        return (whole,)
    return READING.leaves(whole, each, {"": _value}, None)


def _value(variable: Any) -> Array:
    return numpy(variable.value, copy=True)


def _penalties(layer: Any) -> Mapping[str, Array]:
    """Compute what the regularisers add to the loss for each weight; both directions of a Bidirectional."""
    both = halves(layer) if weights.directions(layer) else (layer,)
    each = [_penalties_of(getattr(half, "cell", half)) for half in both]
    return {
        name: np.stack([one[name] for one in each]) if len(each) > 1 else each[0][name] for name in each[0]
    }


def _penalties_of(cell: Any) -> dict[str, Array]:
    named: dict[str, Any] = {
        name: getattr(cell, name, None) for name in ("kernel", "recurrent_kernel", "bias")
    }
    return {
        f"{name}_penalty": np.asarray(numpy(variable.regularizer(variable.value)))
        for name, variable in named.items()
        if getattr(variable, "regularizer", None) is not None
    }
