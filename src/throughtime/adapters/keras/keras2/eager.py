"""Gradients of TensorFlow 2's models: one `tf.function` with a tape, traced once, then run."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
import tensorflow as tf

from throughtime.adapters.keras.dialect import Computation, Traced
from throughtime.adapters.keras.seen import Result

from .internals import autograph_enabled, raw_variable
from .variables import all_variables, values_restored


def trace(computation: Computation, inputs: Any, *, step_by_step: bool, any_batch: bool) -> Traced:
    """Trace a computation for these shapes.

    Parameters
    ----------
    inputs : structure of arrays
    step_by_step : bool
        Run Python at each pass, as models compiled with `run_eagerly=True` do.
    any_batch : bool
        Leave the number of samples open, as `fit` does.
    """

    def run(inputs: Any) -> dict[str, dict[str, Any]]:
        marks: dict[str, Any] = {}
        weights = {k: raw_variable(variable) for k, variable in computation.differentiated.items()}
        with tf.GradientTape(watch_accessed_variables=False) as tape:

            def mark(key: str, tensor: Any) -> Any:
                marks[key] = copy = tf.identity(tensor)
                tape.watch(copy)
                return copy

            for weight in weights.values():
                tape.watch(weight)
            with autograph_enabled():
                loss, tensors = computation(inputs, mark)
        sources = {**marks, **{f"variable.{index}": weight for index, weight in weights.items()}}
        gradients = {} if loss is None else tape.gradient(loss, sources)
        return {
            "tensors": tensors,
            "gradients": {key: tf.convert_to_tensor(g) for key, g in gradients.items() if g is not None},
        }

    if step_by_step:
        return lambda inputs: _result(computation, run, inputs)
    function = tf.function(run, autograph=False)
    specs = tf.nest.map_structure(lambda array: _spec(array, any_batch), inputs)
    concrete = function.get_concrete_function(specs)
    return lambda inputs: _result(computation, concrete, inputs)


def _spec(array: Any, any_batch: bool) -> Any:
    if array is None:
        return None
    shape = list(array.shape)
    if any_batch and shape:
        shape[0] = None
    return tf.TensorSpec(shape, tf.as_dtype(array.dtype))


def _result(computation: Computation, run: Any, inputs: Any) -> Result:
    tensors = tf.nest.map_structure(lambda a: None if a is None else tf.convert_to_tensor(a), inputs)
    with ExitStack() as stack:
        stack.enter_context(values_restored(all_variables(computation.model)))
        outcome = run(tensors)
    return Result(*(_arrays(outcome[name]) for name in ("tensors", "gradients")))


def _arrays(tensors: dict[str, Any]) -> dict[str, Any]:
    return {key: np.asarray(tensor) for key, tensor in tensors.items()}
