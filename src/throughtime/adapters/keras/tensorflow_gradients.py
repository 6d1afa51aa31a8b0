"""Gradients in TensorFlow, for every Keras: a tape, or in a graph of TensorFlow 1 `tf.gradients`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph

from .contracts import T, Tensor, Variable
from .dialect import Step


def differentiated(step: Step[T], variables: Mapping[str, Variable] = {}) -> tuple[T, dict[str, Tensor]]:
    """Run a step; return what it keeps, and the gradients that exist, see `dialect.Dialect`."""
    sources = dict(variables)
    graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    has_tape = graph is None or isinstance(graph, FuncGraph)
    tape = tf.GradientTape(watch_accessed_variables=False)

    def mark(key: str, tensor: Tensor) -> Tensor:
        sources[key] = copy = tf.identity(tensor)
        if has_tape:
            tape.watch(copy)
        return copy

    with tape if has_tape else nullcontext():
        if has_tape:
            tape.watch(list(variables.values()))
        loss, kept = step(mark)
    if loss is None or not sources:
        return kept, {}
    found = (tape.gradient if has_tape else tf.gradients)(loss, list(sources.values()))
    pairs = zip(sources, found, strict=True)
    gradients = {key: tf.convert_to_tensor(each) for key, each in pairs if each is not None}
    if has_tape:
        return kept, gradients
    # Nothing that follows is differentiated through this step.
    kept, gradients = tf.nest.map_structure(
        lambda one: one if one is None else tf.stop_gradient(one), (kept, gradients)
    )
    return kept, gradients
