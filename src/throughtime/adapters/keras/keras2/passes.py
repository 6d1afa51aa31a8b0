"""Runs computations in TensorFlow, eager or in a separate graph."""

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from throughtime.adapters.keras.contracts import Call, Data, Held, Model, T, Tensor, Variable
from throughtime.adapters.keras.dialect import Computation, Result, Step, Traced
from throughtime.adapters.keras.library import belongs_to_a_graph, every_layer, execution, numpy
from throughtime.adapters.keras.tensorflow_gradients import differentiated as of_step
from throughtime.adapters.keras.tensorflow_gradients import scan as scan  # noqa: PLC0414 - for `dialect`

from . import graph
from .graph import autograph_enabled
from .variables import all_variables, is_cast, raw_variable, standing_in, values_restored

BACKEND = "tensorflow"
RUNS_WITHOUT_XLA = True


def traced(model: Model, computation: Computation, inputs: Data) -> Traced:
    """Trace a computation for inputs of these shapes; variables that it assigns are restored."""
    if belongs_to_a_graph(model):
        return graph.trace(model, computation, inputs)
    held: Held = weakref.ref(model)

    def run(inputs: Data) -> Result:
        with autograph_enabled():
            return computation(inputs)

    if not execution(model)[0]:
        specs = tf.nest.map_structure(_spec, inputs)
        run = tf.function(run, autograph=False).get_concrete_function(specs)

    def run_again(inputs: Data) -> Result:
        tensors = tf.nest.map_structure(_tensor, inputs)
        with values_restored(all_variables(held())):
            found: Result = tf.nest.map_structure(_read, run(tensors))
        return found

    return run_again


def _read(value: Tensor) -> Tensor:
    """Read a variable now: its value is restored after the pass."""
    return tf.convert_to_tensor(value) if isinstance(value, tf.Variable) else value


def _spec(array: Tensor) -> object:
    """Describe an array; an open number of samples would make TensorFlow compute shapes at every step."""
    return None if array is None else tf.TensorSpec(array.shape, tf.as_dtype(array.dtype))


def differentiated(
    model: Model, step: Step[T], variables: Mapping[str, Variable]
) -> tuple[T, dict[str, Tensor]]:
    """Run a step; return what it keeps, and the gradients that exist."""
    return of_step(step, {key: raw_variable(variable) for key, variable in variables.items()})


def evaluated_once(model: Model, function: Call, inputs: object) -> float:
    """Evaluate a function of a batch, with the model's variables as they are."""
    if belongs_to_a_graph(model):
        run = graph.trace(model, lambda fed: Result({"value": function(fed)}, {}), inputs)
        return float(numpy(run(inputs).tensors["value"]))
    return float(numpy(function(tf.nest.map_structure(_tensor, inputs))))


def _tensor(array: Tensor) -> Tensor:
    return None if array is None else tf.convert_to_tensor(array)


@contextmanager
def with_weights(layer: Any, copied: Callable[[int, Tensor], Tensor]) -> Iterator[None]:
    """Let a layer compute with what `copied` (position, value) makes of its weights."""
    copies = {}
    for place, weight in enumerate(layer.weights):
        copy = copied(place, raw_variable(weight).read_value())
        copies[id(weight)] = tf.cast(copy, layer.compute_dtype) if is_cast(weight) else copy
    with standing_in(every_layer(layer), copies):
        yield
