"""Describes layers without running the model: their weights, flags and penalties, one record a layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from throughtime._record import Array, LayerRecord, ModelRecord

from . import find, settings, weights
from .arrays import numpy
from .attributes import of_framework
from .leaf_parts import READING
from .library import is_a
from .models import check_model, weight_values
from .ways import halves_of

Values = Mapping[int, Array]


def describe(model: Any, layers: Any) -> ModelRecord:
    """Read chosen layers as they are now.

    Parameters
    ----------
    model : Model or Layer of Keras 2
        Built; in graph mode with a session that has its values.
    layers : see `find.select`
    """
    check_model(model)
    found = find.select(model, layers)
    values = weight_values(model, found)
    return ModelRecord(tuple(leaf for entry in found for leaf in _leaves(entry, values)), of_framework(model))


def _leaves(entry: find.Found, values: Values) -> tuple[LayerRecord, ...]:
    """One leaf for a layer; several where it holds stacked cells, or two halves that differ."""
    layer = entry.watched

    def value(variable: Any) -> Array:
        return numpy(values[id(variable)])

    penalties = _penalties(layer, values)
    whole = LayerRecord(
        path=f"{entry.path}@1" if entry.is_container else entry.path,
        kind=weights.kind(layer),
        arrays={**weights.named(layer, value), **penalties},
        directions=weights.directions(layer),
        flags=settings.of_layer(layer),
        dims={name: ("direction",) for name in penalties if weights.directions(layer)},
    )
    each = halves_of(layer)
    if not is_a(each[0], "RNN"):
        return (whole,)
    return READING.leaves(whole, each, {"": value}, None)


def _penalties(layer: Any, values: Values) -> dict[str, Array]:
    """Compute what the regularisers add to the loss for each weight; both directions of a Bidirectional."""
    halves = halves_of(layer) if weights.directions(layer) else (layer,)
    each = [_penalties_of(getattr(half, "cell", half), values) for half in halves]
    return {
        name: np.stack([one[name] for one in each]) if len(each) > 1 else each[0][name] for name in each[0]
    }


def _penalties_of(cell: Any, values: Values) -> dict[str, Array]:
    found = {}
    names = {"kernel": "kernel", "recurrent_kernel": "recurrent", "bias": "bias"}
    for name, prefix in names.items():
        regularizer, weight = getattr(cell, f"{prefix}_regularizer", None), getattr(cell, name, None)
        if regularizer is not None and id(weight) in values:
            found[f"{name}_penalty"] = _evaluated(regularizer, values[id(weight)])
    return found


def _evaluated(regularizer: Any, value: Array) -> Array:
    if tf.executing_eagerly():
        return np.asarray(regularizer(tf.constant(value)))
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        return np.asarray(session.run(regularizer(tf.constant(value))))
