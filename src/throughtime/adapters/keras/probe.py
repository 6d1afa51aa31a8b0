"""Runs a model once on a batch and returns what was asked for, tracing only what it has not traced before.

Traces are kept per model and freed with it; a recompiled model, other shapes or a changed layer setting
make a new one.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import keras

from throughtime._errors import AmbiguousLayerError, LossError, UnbuiltModelError, UnsupportedModelError
from throughtime._record import ModelRecord, Request

from . import find
from .collect import Pass, records
from .internals import compiled_loss, every_layer, unbuilt_in_cells
from .loss import Labels, check_loss, data_loss, factor, tried_factor
from .program import Program, Result, Traced, all_variables, weakly
from .restore import untouched
from .second_pass import SecondPass

_KEPT_TRACES = 8  # per model; a loop over many batch shapes must not pile up compiled programs
_BOOKKEEPING = ("training", "stop_training", "_called")


@dataclass
class _Trace:
    """A traced program, and what the program learned while it was traced."""

    program: Program
    run: Traced
    loss: Callable[[], Any]
    second: SecondPass
    how_reduced: tuple[float, str] | None = None


_traces: weakref.WeakKeyDictionary[Any, OrderedDict[Any, _Trace]] = weakref.WeakKeyDictionary()


class Probe:
    """Captures chosen layers of one Keras model.

    Parameters
    ----------
    model : keras.Model or keras.layers.Layer
        Built; compiled with a loss unless `loss` is given or no labels will be.
    loss : callable (y_true, y_pred), keras.losses.Loss, str or None
    layers : see `find.select`
    request : Request

    Raises
    ------
    UnsupportedModelError, UnbuiltModelError, LayerNotFoundError
    """

    def __init__(
        self,
        model: Any,
        *,
        loss: Any,
        layers: Any,
        request: Request,
    ) -> None:
        check_model(model)
        self.model = model
        self.loss = loss
        self.request = request
        self.found = find.select(model, layers)

    def __call__(self, x: Any, y: Any, sample_weight: Any) -> ModelRecord:
        """Capture one batch. Structures of arrays; y None for a capture without gradients."""
        inputs = tuple(_tensors(part) for part in (x, y, sample_weight))
        _check_sizes(*inputs)
        with untouched(self.model):
            trace = self._trace(inputs)
            module = _gradient_module()
            values = [module.value_of(variable) for variable in all_variables(self.model)]
            result = trace.run(values, inputs)
            reduced = self._how_reduced(trace, result, inputs)
            unrolled = trace.second(self.model, trace.program.calls, result, values)
        wanted = self._wanted(y is not None)
        done = Pass(self.model, self.found, trace.program, result, wanted, unrolled)
        return records(done, reduced)

    def expect_one_layer(self) -> None:
        """Refuse several layers where one is meant."""
        if len(self.found) > 1:
            paths = ", ".join(entry.path for entry in self.found)
            raise AmbiguousLayerError(
                f"The model has {len(self.found)} recurrent layers, {paths}: choose one with layer_name= or "
                f"layer_idx=.\n{find.listing(self.model)}"
            )

    def _wanted(self, has_labels: bool) -> frozenset[str]:
        return self.request.quantities - (frozenset() if has_labels else self.request.gradients)

    def _trace(self, inputs: Any) -> _Trace:
        kept = _traces.setdefault(self.model, OrderedDict())
        key = self._key(inputs)
        trace = kept.get(key)
        if trace is None or trace.loss() is not self._loss_identity():
            trace = kept[key] = self._new_trace(inputs)
        kept.move_to_end(key)
        while len(kept) > _KEPT_TRACES:
            kept.popitem(last=False)
        return trace

    def _loss_identity(self) -> Any:
        """Return what a trace is made for: the loss passed, else what `compile` made of the model's."""
        return compiled_loss(self.model) if self.loss is None else self.loss

    def _key(self, inputs: Any) -> Any:
        shapes = keras.tree.map_structure(_shape_and_dtype, inputs)
        layers = tuple(id(entry.layer) for entry in self.found)
        runs = (getattr(self.model, "run_eagerly", False), getattr(self.model, "jit_compile", False))
        loss = self.loss if isinstance(self.loss, str) else id(self._loss_identity())
        return (
            str(shapes),
            loss,
            layers,
            self.request.quantities,
            self.request.training,
            runs,
            _settings(self.model),
        )

    def _new_trace(self, inputs: Any) -> _Trace:
        has_labels = inputs[1] is not None
        wanted = self._wanted(has_labels)
        if has_labels:
            check_loss(self.model, self.loss)
        program = Program(
            self.model,
            self.found,
            weakly(self.loss),
            wanted,
            training=self.request.training,
            activations=self.request.activations,
        )
        program.has_loss = has_labels
        variables = all_variables(self.model)
        if "weight_gradients" in wanted:
            positions = {id(variable): index for index, variable in enumerate(variables)}
            weights = [weight for entry in self.found for weight in entry.layer.weights]
            chosen = {positions[id(w)] for w in weights if keras.backend.is_float_dtype(w.dtype)}
            program.differentiated = sorted(chosen)
        module = _gradient_module()
        values = [module.value_of(variable) for variable in variables]
        trace = partial(module.trace, **_execution(self.model))
        second = SecondPass(trace, module.scan, self.request.training)
        return _Trace(program, trace(program, values, inputs), weakly(self._loss_identity()), second)

    def _how_reduced(self, trace: _Trace, result: Result, inputs: Any) -> tuple[float, str] | None:
        if not trace.program.has_loss:
            return None
        if trace.how_reduced is None:
            labels, how, size = Labels(*inputs), trace.program.reductions, batch_size(inputs[0])
            if how is None:
                predictions = trace.program.predictions(result)
                trace.how_reduced = tried_factor(labels, predictions, self._data_loss, size)
            else:
                trace.how_reduced = factor(how, labels.sample_weight, size)
        return trace.how_reduced

    def _data_loss(self, labels: Labels, predictions: Any) -> float:
        variables = all_variables(self.model)
        mapping = [(variable, _gradient_module().value_of(variable)) for variable in variables]
        with keras.StatelessScope(mapping, initialize_variables=False):
            value = data_loss(self.model, self.loss, labels, predictions, self.request.training)
            return float(keras.ops.convert_to_numpy(value))


def check_model(model: Any) -> None:
    """Refuse what cannot be captured: no Keras model, or one without weights yet."""
    if not isinstance(model, keras.layers.Layer):
        raise UnsupportedModelError(f"Expected a Keras model, got {type(model).__name__}.")
    if not model.built:
        raise UnbuiltModelError(
            f"The model {model.name!r} is not built: it has no weights yet. Start it with "
            "keras.Input(shape), or call it once on a batch, model(x), and capture then."
        )
    unbuilt = unbuilt_in_cells(model)
    if unbuilt:
        raise UnbuiltModelError(
            f"Keras builds {', '.join(unbuilt)}, inside a recurrent cell of {model.name!r}, when the cell "
            "first runs: call the model once on a batch, model(x), and capture then."
        )


def _execution(model: Any) -> dict[str, bool]:
    """How the model was compiled to run."""
    return {
        "eager": bool(getattr(model, "run_eagerly", False)),
        "compiled": bool(getattr(model, "compiled", False) and model.jit_compile),
    }


def _gradient_module() -> Any:
    return import_module(f"throughtime.adapters.keras.gradient_{keras.backend.backend()}")


def _tensors(structure: Any) -> Any:
    """Turn arrays into the backend's tensors, that share no mask or history with the caller's."""
    if structure is None:
        return None
    return keras.tree.map_structure(_tensor, structure)


def _tensor(array: Any) -> Any:
    if array is None:
        return None
    tensor = keras.ops.convert_to_tensor(array)
    return tensor.detach() if hasattr(tensor, "detach") else tensor


def _shape_and_dtype(tensor: Any) -> str:
    return "none" if tensor is None else f"{tuple(tensor.shape)} {tensor.dtype}"


def batch_size(structure: Any) -> int:
    """Return the number of samples in a structure of arrays."""
    return int(keras.tree.flatten(structure)[0].shape[0])


def _check_sizes(x: Any, y: Any, sample_weight: Any) -> None:
    size = batch_size(x)
    for name, structure in (("labels", y), ("sample_weight", sample_weight)):
        for array in keras.tree.flatten(structure) if structure is not None else ():
            shape = tuple(getattr(array, "shape", ()))
            if not shape or shape[0] != size:
                raise LossError(
                    f"x has {size} samples and {name} have shape {shape}: the first axes must agree."
                )


def _settings(model: Any) -> tuple[Any, ...]:
    """Every plain setting of every layer: a change in one of them changes what the model computes.

    What Keras and torch merely note down is left out; the mode of a pass is an argument of its call.
    """
    plain = (bool, int, float, str)
    return tuple(
        frozenset(
            (name, value)
            for name, value in vars(layer).items()
            if isinstance(value, plain) and name not in _BOOKKEEPING
        )
        for layer in every_layer(model)
    )
