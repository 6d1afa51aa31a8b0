"""What is asked of a whole model of Keras 2: weights, settings, and that it is left as it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from throughtime._errors import UnsupportedModelError
from throughtime.adapters.keras.cell import inner_cells
from throughtime.adapters.keras.library import (
    belongs_to_a_graph,
    check_built,
    every_layer,
    internal,
    is_a,
    is_layer,
    package_of_object,
    version,
)
from throughtime.adapters.records import Array, Attribute

from . import graph
from .tensors import raw_variable


def check_model(model: Any) -> None:
    """Refuse what cannot be captured: a model without weights yet, or spread over devices."""
    check_built(model, [part for layer in every_layer(model) for part in _unbuilt(layer)])
    if any("distribute" in type(raw_variable(variable)).__module__ for variable in model.weights):
        raise UnsupportedModelError(
            f"The weights of {model.name!r} are spread over devices by a tf.distribute strategy. Build the "
            "model once more outside of strategy.scope(), give it the weights with "
            "set_weights(model.get_weights()), and capture that one."
        )
    for layer in every_layer(model):
        if getattr(layer, "time_major", False):
            raise UnsupportedModelError(
                f"The layer {layer.name!r} has time_major=True: its first axis is time. Build it with "
                "time_major=False and give it tf.transpose(x, [1, 0, 2]); its weights are the same."
            )


def _unbuilt(layer: Any) -> Iterator[str]:
    if is_a(layer, "RNN") and hasattr(layer, "cell"):
        for cell in inner_cells(layer.cell):
            if is_layer(cell) and not cell.built:  # what is no layer has its weights from the start
                yield str(cell.name)


def weight_values(model: Any, variables: Sequence[Any]) -> dict[int, Array]:
    """Read variables as they are now, by their identity."""
    variables = list({id(variable): variable for variable in variables}.values())
    if belongs_to_a_graph(model):
        values = graph.values_of(model, variables)
    else:
        values = [np.array(raw_variable(variable).read_value()) for variable in variables]
    return {id(variable): value for variable, value in zip(variables, values, strict=True)}


def of_framework(model: Any) -> dict[str, Attribute]:
    """Name the Keras 2 of a model, its version, and how it runs."""
    return {
        "framework": package_of_object(model),
        "framework_version": version(model),
        "backend": "tensorflow",
        "backend_version": str(tf.__version__),
        "mode": "graph" if belongs_to_a_graph(model) else "eager",
    }


def regularised(model: Any) -> list[str]:
    """Name the layers that are regularised, once for each regulariser."""
    return [layer.name for layer in every_layer(model) for _ in layer._callable_losses]


def automatic_name_count(layer: Any, prefix: str) -> int:
    """How many names Keras has given out for this prefix, in the graph that has given out most."""
    counts = internal(layer, "backend").PER_GRAPH_OBJECT_NAME_UIDS.values()
    return max((int(names.get(("", prefix), 0)) for names in counts), default=0)


def compute_dtype(layer: Any) -> str:
    """Name the precision a layer computes in; one that takes over its input's shows it by its weights."""
    held = [layer, getattr(layer, "forward_layer", None), getattr(layer, "cell", None)]
    told = (getattr(each, "compute_dtype", None) for each in held)
    weights = (tf.as_dtype(raw_variable(weight).dtype).name for weight in getattr(layer, "weights", ()))
    return str(next(filter(None, [*told, *weights]), "float32"))
