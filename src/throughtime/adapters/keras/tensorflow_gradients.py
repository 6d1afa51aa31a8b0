"""Gradients in TensorFlow, for every Keras: a tape, or in a graph of TensorFlow 1 `tf.gradients`."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph
from tensorflow.python.ops import control_flow_util as control_flow
from tensorflow.python.ops import list_ops as lists

from .contracts import LoopStep, Scanned, T, Tensor, Variable
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


def scan(step: LoopStep, carry: Any, sequences: Any) -> Scanned:
    """Run `step` (carry, values of one step) -> (carry, outputs) along the first axis.

    The loop pops each value from the end of a list, and the gradient appends to the end of a list. If a
    loop reads a list by index, as Keras' own does, TensorFlow adds two whole lists at every step.
    """
    flat, pack = tf.nest.flatten(sequences), tf.nest.pack_sequence_as
    _, like = step(carry, tf.nest.map_structure(lambda each: each[0], sequences))
    if not control_flow.EnableControlFlowV2(tf.compat.v1.get_default_graph()):
        return _scan_in_loops_of_tensorflow_1(step, carry, sequences, like)
    kept, steps = tf.nest.flatten(like), tf.shape(flat[0])[0]
    coming = [lists.tensor_list_from_tensor(tf.reverse(one, [0]), one.shape[1:]) for one in flat]
    left = [lists.empty_tensor_list(one.shape, one.dtype, steps) for one in kept]

    def advance(coming: list[Tensor], left: list[Tensor], carried: list[Tensor]) -> Any:
        taken = [lists.tensor_list_pop_back(each, one.dtype) for each, one in zip(coming, flat, strict=True)]
        values = [tf.ensure_shape(value, one.shape[1:]) for (_, value), one in zip(taken, flat, strict=True)]
        after, outputs = step(pack(carry, carried), pack(sequences, values))
        left = list(map(lists.tensor_list_push_back, left, tf.nest.flatten(outputs)))
        return [rest for rest, _ in taken], left, tf.nest.flatten(_shaped(after, carried))

    start = coming, left, tf.nest.flatten(carry)
    _, left, final = tf.while_loop(lambda *_: True, advance, start, maximum_iterations=steps)
    known = flat[0].shape[0] or -1
    outputs = [
        lists.tensor_list_stack(each, one.dtype, known, one.shape)
        for each, one in zip(left, kept, strict=True)
    ]
    return pack(carry, final), pack(like, outputs)


def _shaped(after: Any, before: Any) -> Any:
    """Give states the shapes that they had, as Keras does: a cell may compute them."""
    for new, old in zip(tf.nest.flatten(after), tf.nest.flatten(before), strict=True):
        new.set_shape(old.shape)
    return after


def _scan_in_loops_of_tensorflow_1(step: LoopStep, carry: Any, sequences: Any, like: Any) -> Scanned:
    """Do what `scan` does where a loop has no gradient by a list; `like` has the outputs of one step."""

    def advance(before: Any, values: Any) -> Any:
        after, outputs = step(before[0], values)
        return _shaped(after, before[0]), outputs

    start = carry, tf.nest.map_structure(tf.zeros_like, like)
    carried, outputs = tf.scan(advance, sequences, start)
    return tf.nest.map_structure(lambda every: every[-1], carried), outputs
