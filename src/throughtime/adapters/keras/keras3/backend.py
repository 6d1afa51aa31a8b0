"""Runs computations on the backend that Keras computes with, without a trace on the model's variables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import keras
from keras.src.backend.common.stateless_scope import get_stateless_scope

from throughtime._data.random_states import random_states_restored
from throughtime.adapters.keras.dialect import Computation, Traced
from throughtime.adapters.keras.seen import Result

from .arrays import numpy
from .variables import all_variables

TracedValues = Callable[[Sequence[Any], Any], Result]  # variable values, inputs -> Result


def module() -> Any:
    """Return `gradient_<backend>`, which has `trace`, `value_of` and `scan`."""
    return import_module(f"throughtime.adapters.keras.keras3.gradient_{keras.backend.backend()}")


@dataclass(frozen=True)
class Scoped:
    """A computation as a plain function of variable values as well."""

    computation: Computation

    @property
    def differentiated(self) -> list[int]:
        """Positions in `all_variables(model)` whose gradients are wanted."""
        return sorted(self.computation.differentiated)

    @property
    def has_loss(self) -> bool:
        """Whether there is something to differentiate."""
        return self.computation.has_loss

    def __call__(self, values: Sequence[Any], inputs: Any, mark: Any) -> tuple[Any, dict[str, Any]]:
        """Run the computation with these values."""
        with scope(self.computation.model, values):
            return self.computation(inputs, mark)


def scope(model: Any, values: Sequence[Any] | None = None) -> Any:
    """Let a model compute with values in place of its variables, by default their own, and keep none."""
    values = _values_of(model) if values is None else values
    mapping = list(zip(all_variables(model), values, strict=True))
    return keras.StatelessScope(mapping, collect_losses=True, initialize_variables=False)


def _values_of(model: Any) -> list[Any]:
    return [module().value_of(variable) for variable in all_variables(model)]


def execution(model: Any) -> tuple[bool, bool]:
    """Describe how a model was compiled to run: step by step, with XLA."""
    is_eager = bool(getattr(model, "run_eagerly", False))
    return is_eager, bool(getattr(model, "compiled", False) and model.jit_compile)


def runs_at_once(model: Any) -> bool:
    """Whether a pass computes as it goes, and is not traced first."""
    return keras.backend.backend() == "torch" or execution(model)[0]


def traced(computation: Computation, inputs: Any) -> Traced:
    """Trace a computation and its gradients for inputs of these shapes."""
    model = computation.model
    is_eager, compiled = execution(model)
    with random_states_restored():
        run = module().trace(
            Scoped(computation), _values_of(model), inputs, eager=is_eager, compiled=compiled
        )

    def run_again(inputs: Any) -> Result:
        with random_states_restored():  # torch draws dropout from its global generator, pass by pass
            result: Result = run(_values_of(computation.model), inputs)
        return result

    return run_again


def evaluated_once(model: Any, function: Callable[[Any], Any], inputs: Any) -> float:
    """Evaluate a function of a batch, with the model's variables as they are."""
    with scope(model):
        return float(numpy(function(inputs)))


@contextmanager
def with_weights(layer: Any, copied: Callable[[int, Any], Any]) -> Iterator[None]:
    """Let a layer compute with what `copied` (position, value) makes of its weights."""
    values = get_stateless_scope().state_mapping
    kept = {id(weight): values[id(weight)] for weight in layer.weights}
    values.update({key: copied(place, value) for place, (key, value) in enumerate(kept.items())})
    try:
        yield
    finally:
        values.update(kept)


def called(model: Any, x: Any, training: bool) -> Any:
    """Call a model, in training or not where it makes a difference."""
    if getattr(model, "_call_has_training_arg", True):
        return model(x, training=training)
    return model(x)
