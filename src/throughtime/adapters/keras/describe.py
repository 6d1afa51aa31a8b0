"""Reads layers without running the model: weights, flags and penalties; copies a model's weights."""

import os
from collections.abc import Iterable, Mapping

import numpy as np

from throughtime.adapters.records import Array, LayerRecord, ModelRecord

from . import attributes, weights
from .contracts import Layer, Model, Variable
from .dialect import Dialect
from .find import Found, selection
from .leaves import Whole
from .library import halves, numpy
from .weights import Values


def describe(keras: Dialect, model: Model, layers: object) -> ModelRecord:
    """Read chosen layers as they are now; in graph mode a session must have their values."""
    keras.check_model(model)
    found = selection(keras, model).select(layers)
    variables = [weight for entry in found for weight in entry.layer.weights]
    values = keras.weight_values(model, variables)

    def value(variable: Variable) -> Array | None:
        return numpy(values[id(variable)], copy=True) if id(variable) in values else None

    leaves = tuple(leaf for entry in found for leaf in _leaves(keras, model, entry, value))
    return ModelRecord(leaves, keras.of_framework(model))


def _leaves(keras: Dialect, model: Model, entry: Found, value: Values) -> tuple[LayerRecord, ...]:
    """One leaf for a layer; several where it holds stacked cells, or two halves that differ."""
    layer, directions = entry.layer, weights.directions(entry.layer)
    penalties = _penalties(keras, model, layer, value)
    whole = LayerRecord(
        path=entry.leaf(1),
        kind=weights.kind(layer),
        arrays={**weights.named(layer, value), **penalties},
        directions=directions,
        flags=attributes.of_layer(keras, layer),
        dims={name: ("direction",) for name in penalties if directions},
    )
    return Whole(keras, layer, whole, {"": value}, None).leaves()


def _penalties(keras: Dialect, model: Model, layer: Layer, value: Values) -> Mapping[str, Array]:
    """Compute what the regularisers add to the loss for each weight; both directions of a Bidirectional."""
    both = halves(layer) if weights.directions(layer) else (layer,)
    each = [_penalties_of(keras, model, getattr(half, "cell", half), value) for half in both]
    return {
        name: np.stack([one[name] for one in each]) if len(each) > 1 else each[0][name] for name in each[0]
    }


def _penalties_of(keras: Dialect, model: Model, cell: Layer, value: Values) -> dict[str, Array]:
    found = {}
    for name, prefix in (("kernel", "kernel"), ("recurrent_kernel", "recurrent"), ("bias", "bias")):
        regularizer, weight = getattr(cell, f"{prefix}_regularizer", None), getattr(cell, name, None)
        array = None if weight is None else value(weight)
        if regularizer is not None and array is not None:
            penalty = keras.evaluated_once(model, regularizer, array)
            found[f"{name}_penalty"] = np.asarray(penalty, array.dtype)
    return found


def weights_of(model: Model) -> list[Array]:
    """Copy all weights."""
    return model.get_weights()


def load_weights(model: Model, source: str | os.PathLike[str] | Iterable[Array]) -> Model:
    """Put weights into a model: a list of arrays, or a file `.keras`, `.weights.h5` or `.h5`."""
    if isinstance(source, (str, os.PathLike)):
        model.load_weights(os.fspath(source))
    else:
        model.set_weights(list(source))
    return model
