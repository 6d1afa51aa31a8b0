"""Runs computations on the backend that Keras computes with, without a trace on the model's variables."""

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module

import keras
from keras.src.backend.common.stateless_scope import get_stateless_scope

from throughtime._inputs.restoring import random_states_restored
from throughtime.adapters.keras.contracts import Call, Data, Held, Layer, Model, T, Tensor, Variable
from throughtime.adapters.keras.dialect import Computation, Mark, Result, Step, Traced
from throughtime.adapters.keras.library import execution, numpy

from .models import all_variables

BACKEND = str(keras.backend.backend())
RUNS_WITHOUT_XLA = False
_OF_BACKEND = import_module(f"{__package__}.gradient_{BACKEND}")
scan = _OF_BACKEND.scan


def scope(model: Model, values: Sequence[Tensor] | None = None) -> AbstractContextManager[object]:
    """Let a model compute with values in place of its variables, by default their own, and keep none."""
    values = _values_of(model) if values is None else values
    mapping = list(zip(all_variables(model), values, strict=True))
    return keras.StatelessScope(mapping, collect_losses=True, initialize_variables=False)


def _values_of(model: Model) -> list[Tensor]:
    return [_OF_BACKEND.value_of(variable) for variable in all_variables(model)]


def traced(model: Model, computation: Computation, inputs: Data) -> Traced:
    """Trace a computation for inputs of these shapes."""
    is_eager, with_xla = execution(model)
    held: Held = weakref.ref(model)

    def run(values: Sequence[Tensor], inputs: Data) -> Result:
        with scope(held(), values):
            return computation(inputs)

    with random_states_restored():
        compiled = _OF_BACKEND.compiled(run, _values_of(model), inputs, eager=is_eager, with_xla=with_xla)

    def run_again(inputs: Data) -> Result:
        with random_states_restored():  # torch draws dropout from its global generator, pass by pass
            return compiled(_values_of(held()), inputs)

    return run_again


def differentiated(
    model: Model, step: Step[T], variables: Mapping[str, Variable]
) -> tuple[T, dict[str, Tensor]]:
    """Run a step in a separate scope; return its values, and the gradients that exist."""
    outer = get_stateless_scope()
    values = [outer.get_current_value(variable) for variable in all_variables(model)]

    def scoped(mark: Mark) -> tuple[Tensor | None, T]:
        with scope(model, values):
            of_scope = get_stateless_scope().state_mapping
            for key, variable in variables.items():
                of_scope[id(variable)] = mark(key, of_scope[id(variable)])
            return step(mark)

    return _OF_BACKEND.differentiated(scoped)


def evaluated_once(model: Model, function: Call, inputs: object) -> float:
    """Evaluate a function of a batch, with the model's variables as they are."""
    with scope(model):
        return float(numpy(function(inputs)))


@contextmanager
def with_weights(layer: Layer, copied: Callable[[int, Tensor], Tensor]) -> Iterator[None]:
    """Let a layer compute with what `copied` (position, value) makes of its weights."""
    values = get_stateless_scope().state_mapping
    kept = {id(weight): values[id(weight)] for weight in layer.weights}
    values.update({key: copied(place, value) for place, (key, value) in enumerate(kept.items())})
    try:
        yield
    finally:
        values.update(kept)
