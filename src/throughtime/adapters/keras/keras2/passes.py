"""Runs computations in TensorFlow, eager or in a graph of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from throughtime.adapters.keras.dialect import Computation, Traced
from throughtime.adapters.keras.layers import every_layer
from throughtime.adapters.keras.library import belongs_to_a_graph

from . import eager, graph
from .internals import is_cast, raw_variable
from .variables import standing_in


def execution(model: Any) -> bool:
    """Describe how a model was compiled to run: step by step, or not."""
    return bool(getattr(model, "run_eagerly", False))


def traced(computation: Computation, inputs: Any) -> Traced:
    """Trace a computation and its gradients for inputs of these shapes."""
    model = computation.model
    if belongs_to_a_graph(model):
        return graph.trace(computation, inputs)
    is_stateful = any(getattr(layer, "stateful", False) for layer in every_layer(model))
    any_batch = computation.any_batch and not is_stateful
    return eager.trace(computation, inputs, step_by_step=execution(model), any_batch=any_batch)


def evaluated_once(model: Any, function: Callable[[Any], Any], inputs: Any) -> float:
    """Evaluate a function of a batch, with the model's variables as they are."""
    if belongs_to_a_graph(model):
        return float(graph.evaluate(model, function, inputs))
    return float(function(tf.nest.map_structure(_tensor, inputs)))


def _tensor(array: Any) -> Any:
    return None if array is None else tf.convert_to_tensor(array)


@contextmanager
def with_weights(layer: Any, copied: Callable[[int, Any], Any]) -> Iterator[None]:
    """Let a layer compute with what `copied` (position, value) makes of its weights."""
    copies = {}
    for place, weight in enumerate(layer.weights):
        copy = copied(place, raw_variable(weight).read_value())
        copies[id(weight)] = tf.cast(copy, layer.compute_dtype) if is_cast(weight) else copy
    with standing_in(every_layer(layer), copies):
        yield


def called(model: Any, x: Any, training: bool) -> Any:
    """Call a model as training or as inference."""
    return model(x, training=training)
