"""Runs computations on the backend that Keras computes with, without a trace on the model's variables."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from types import ModuleType

import keras
from keras.src.backend.common.stateless_scope import get_stateless_scope

from throughtime._inputs.restoring import random_states_restored
from throughtime.adapters.keras.contracts import Call, Data, Held, Layer, Model, T, Tensor, Variable
from throughtime.adapters.keras.dialect import Computation, Mark, Result, Step, Traced
from throughtime.adapters.keras.library import numpy

from .models import all_variables

Run = Callable[
    [Sequence[Tensor], object], tuple[dict[str, Tensor], dict[str, Tensor]]
]  # variable values, inputs

BACKEND = str(keras.backend.backend())
RUNS_WITHOUT_XLA = False


def module() -> ModuleType:
    """Return `gradient_<backend>`, which has `compiled`, `differentiated`, `value_of` and `scan`."""
    return import_module(f"throughtime.adapters.keras.keras3.gradient_{BACKEND}")


def scope(model: Model, values: Sequence[Tensor] | None = None) -> AbstractContextManager[object]:
    """Let a model compute with values in place of its variables, by default their own, and keep none."""
    values = _values_of(model) if values is None else values
    mapping = list(zip(all_variables(model), values, strict=True))
    return keras.StatelessScope(mapping, collect_losses=True, initialize_variables=False)


def _values_of(model: Model) -> list[Tensor]:
    return [module().value_of(variable) for variable in all_variables(model)]


def execution(model: Model) -> tuple[bool, bool]:
    """Describe how a model was compiled to run: step by step, with XLA."""
    is_eager = bool(getattr(model, "run_eagerly", False))
    return is_eager, bool(getattr(model, "compiled", False) and model.jit_compile)


def traced(model: Model, computation: Computation, inputs: Data, *, any_batch: bool) -> Traced:
    """Trace a computation for inputs of these shapes."""
    is_eager, with_xla = execution(model)
    held: Held = weakref.ref(model)

    def run(values: Sequence[Tensor], inputs: Data) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        with scope(held(), values):
            return computation(inputs)

    with random_states_restored():
        compiled = module().compiled(run, _values_of(model), inputs, eager=is_eager, with_xla=with_xla)

    def run_again(inputs: object) -> Result:
        with random_states_restored():  # torch draws dropout from its global generator, pass by pass
            return Result(*compiled(_values_of(held()), inputs))

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

    found: tuple[T, dict[str, Tensor]] = module().differentiated(scoped)
    return found


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
