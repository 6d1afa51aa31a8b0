"""Gradients on the TensorFlow backend: one `tf.function` with a tape, traced once, then run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import tensorflow as tf
from keras.src.backend.tensorflow.rnn import rnn

from throughtime.adapters.keras.loop import scan_by_rnn
from throughtime.adapters.keras.seen import Result

from .backend import Scoped, TracedValues


def trace(
    program: Scoped, variables: Sequence[Any], inputs: Any, *, compiled: bool, eager: bool
) -> TracedValues:
    """Trace `program` for these shapes.

    Returns
    -------
    callable
        (variable values, inputs) -> Result, holding no reference to the model.
    """

    def run(values: list[Any], inputs: Any) -> dict[str, dict[str, Any]]:
        marks: dict[str, Any] = {}
        with tf.GradientTape(watch_accessed_variables=False, persistent=False) as tape:

            def mark(key: str, tensor: Any) -> Any:
                marks[key] = copy = tf.identity(tensor)
                tape.watch(copy)
                return copy

            values = [tf.identity(value) for value in values]
            for index in program.differentiated:
                tape.watch(values[index])
            loss, tensors = program(values, inputs, mark)
        sources = {**marks, **{f"variable.{index}": values[index] for index in program.differentiated}}
        gradients = tape.gradient(loss, sources) if loss is not None else {}
        return {
            "tensors": tensors,
            "gradients": {key: tf.convert_to_tensor(g) for key, g in gradients.items() if g is not None},
        }

    if eager:
        return lambda values, inputs: _result(run(list(values), inputs))
    function = tf.function(run, autograph=False, jit_compile=compiled)
    concrete = function.get_concrete_function(list(variables), inputs)
    return lambda values, inputs: _result(concrete(list(values), inputs))


def _result(outcome: dict[str, dict[str, Any]]) -> Result:
    return Result(outcome["tensors"], outcome["gradients"])


def value_of(variable: Any) -> Any:
    """Return the variable's own value as a tensor."""
    return tf.convert_to_tensor(variable._value)


_LONGEST = 2**30


def scan(step: Any, carry: Any, sequences: Any) -> tuple[Any, Any]:
    """Run `step` (carry, values of one step) -> (carry, outputs) along the first axis, in Keras' own loop."""
    # XLA needs to know how many steps there are; where that is not known, the loop finds out by itself.
    most = tf.nest.flatten(sequences)[0].shape[0] or _LONGEST
    own = partial(rnn, input_length=most, time_major=True, return_all_outputs=True)
    return scan_by_rnn(tf.nest, own, step, carry, sequences)
