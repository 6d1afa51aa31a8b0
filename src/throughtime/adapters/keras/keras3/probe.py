"""Runs a model once on a batch and returns what was asked for, tracing only what it has not traced before.

Traces are kept per model and freed with it; a recompiled model, other shapes or a changed layer setting
make a new one.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import keras

from throughtime._data.random_states import random_states_restored
from throughtime._errors import AmbiguousLayerError, LossError
from throughtime._memory.budget import Budget
from throughtime.adapters.keras import loss_scale
from throughtime.adapters.keras.collect import Pass, records
from throughtime.adapters.keras.coupling import couples
from throughtime.adapters.keras.every_step import EveryStep
from throughtime.adapters.keras.reductions import Attempt, Labels, Trials
from throughtime.adapters.keras.second_pass import SecondPass
from throughtime.adapters.keras.seen import Result
from throughtime.adapters.records import ModelRecord, Request

from . import dialect, find
from .backend import module
from .internals import compiled_loss, synchronise
from .loss import check_loss, data_loss, has_data_loss, may_do_without_labels
from .models import check_model, execution, plain_settings
from .parts import Parts, why_whole
from .program import Program, Traced, WithinSteps, weakly
from .restore import untouched
from .tensors import (
    batch_size,
    check_inputs,
    check_sizes,
    first_array,
    first_sample,
    ragged_told,
    rows_of,
    shape_and_dtype,
    tensors,
    with_copies,
)
from .variables import all_variables, numbers_of

_KEPT_TRACES = 8  # per model; a loop over many batch shapes must not pile up compiled programs


@dataclass
class _Trace:
    """A traced program, and what the program learned while it was traced."""

    program: Program
    run: Traced
    loss: Callable[[], Any]
    second: SecondPass
    is_scaled: bool
    trials: Trials = field(default_factory=Trials)


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
        self._parts = self._new_parts()

    def __call__(self, x: Any, y: Any, sample_weight: Any, budget: Budget) -> ModelRecord:
        """Capture one batch. Structures of arrays; y None for a capture without gradients.

        Raises
        ------
        ExceededError
            The pass would take more than the budget.
        """
        synchronise(self.model)
        data = tuple(map(tensors, (x, y, sample_weight)))
        check_inputs(self.model, data[0])
        check_sizes(*data)
        kept = untouched(self.model)
        with ragged_told(x), kept, kept:
            trace, result = self._pass(data, budget)
            reduced = self._how_reduced(trace, result, data)
            within = trace.second(trace.program.calls, result)
        wanted = self._wanted(trace.program.has_loss)
        done = Pass(
            dialect, self.model, self.found, trace.program, result, wanted, within, lambda each: each.value
        )
        record = records(done, reduced)
        if budget.part == budget.samples or reduced is None:
            return record
        return self._parts.record(record, reduced[1], trace.program, result, data)

    def samples(self, x: Any) -> int:
        """Count the samples of a batch."""
        return batch_size(x)

    def part(self, data: Any, rows: slice) -> Any:
        """Take some of the samples of x, y and sample weights."""
        if rows.start == 0:
            self._parts = self._new_parts()
        return keras.tree.map_structure(lambda array: None if array is None else array[rows], data)

    def _new_parts(self) -> Parts:
        return Parts(self.model, self.loss, self._data_loss)

    def why_whole(self, data: Any) -> str:
        """Tell why parts of a batch would not add up to it; empty where nothing known yet says so."""
        return why_whole(self.model, data[0], self.request.training)

    def _pass(self, data: Any, budget: Budget) -> tuple[_Trace, Result]:
        """Run on a batch; without a loss where there are no labels and the model has none of its own."""
        try:
            trace = self._trace(data, budget)
            return trace, self._run(trace, data)
        except LossError:
            if data[1] is not None:
                raise
        trace = _traces[self.model][self._key(data)] = self._new_trace(data, False, budget)
        return trace, self._run(trace, data)

    def _run(self, trace: _Trace, data: Any) -> Result:
        values = _values_of(self.model)

        def run(scale: Any) -> Result:
            with random_states_restored():  # torch draws dropout from its global generator, pass by pass
                return trace.run(values, (*data, scale))

        return loss_scale.run_scaled(dialect, run) if trace.is_scaled else run(None)

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

    def _trace(self, data: Any, budget: Budget) -> _Trace:
        kept = _traces.setdefault(self.model, OrderedDict())
        key = self._key(data)
        trace = kept.get(key)
        if trace is None or trace.loss() is not self._loss_identity():
            trace = kept[key] = self._new_trace(data, self._expects_loss(data), budget)
        trace.program.budget = budget
        budget.check(trace.program.need)
        kept.move_to_end(key)
        while len(kept) > _KEPT_TRACES:
            kept.popitem(last=False)
        return trace

    def _loss_identity(self) -> Any:
        """Return what a trace is made for: the loss passed, else what `compile` made of the model's."""
        return compiled_loss(self.model) if self.loss is None else self.loss

    def _key(self, data: Any) -> Any:
        shapes = keras.tree.map_structure(shape_and_dtype, data)
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
            plain_settings(self.model),
        )

    def _expects_loss(self, data: Any) -> bool:
        """Whether there are labels, or a loss of the model's own that may need none."""
        if data[1] is None:
            return may_do_without_labels(self.model, self.loss)
        check_loss(self.model, self.loss)
        return True

    def _new_trace(self, data: Any, has_loss: bool, budget: Budget) -> _Trace:
        wanted = self._wanted(has_loss)
        program = Program(
            self.model,
            self.found,
            weakly(self.loss),
            replace(self.request, quantities=wanted),
            has_loss=has_loss,
            at_once=keras.backend.backend() == "torch" or execution(self.model)["eager"],
        )
        program.budget = budget
        variables = all_variables(self.model)
        if "weight_gradients" in wanted:
            positions = numbers_of(self.model)
            weights = [weight for entry in self.found for weight in entry.layer.weights]
            chosen = {positions[id(w)] for w in weights if keras.backend.is_float_dtype(w.dtype)}
            program.differentiated = sorted(chosen)
        values = [module().value_of(variable) for variable in variables]
        trace = self._tracer()
        is_scaled = has_loss and loss_scale.is_needed(dialect, self.model)
        inputs = (*data, keras.ops.ones((), "float32") if is_scaled else None)
        second = SecondPass(dialect, self._traced_within(), program.request, is_scaled)
        return _Trace(
            program, trace(program, values, inputs), weakly(self._loss_identity()), second, is_scaled
        )

    def _tracer(self) -> Callable[..., Traced]:
        return partial(module().trace, **execution(self.model))

    def _traced_within(self) -> Callable[[EveryStep, Any, bool], Callable[[Any], Result]]:
        """Make what traces the steps of a direction; it outlives this probe and does not hold the model."""
        model, tracer = weakref.ref(self.model), self._tracer()

        def trace(every_step: EveryStep, inputs: Any, has_loss: bool) -> Callable[[Any], Result]:
            program = WithinSteps(model(), every_step, has_loss=has_loss)
            run = tracer(program, _values_of(model()), inputs)
            return lambda inputs: run(_values_of(model()), inputs)

        return trace

    def _how_reduced(self, trace: _Trace, result: Result, data: Any) -> tuple[float, str] | None:
        """Find what the loss puts on each sample's gradient, and say in words what was done about it."""
        if not trace.program.has_loss:
            return None
        labels, size = Labels(*data), batch_size(data[0])
        attempt = Attempt(
            labels,
            size,
            weight=first_array(labels.sample_weight),
            predictions=lambda: trace.program.predictions(result),
            evaluate=self._data_loss,
            rows_of=rows_of,
            has_data_loss=lambda: has_data_loss(self.model, self.loss),
            couples=lambda: couples(
                result, lambda: self._run(trace, with_copies(data, size)), size, first_sample
            ),
        )
        return trace.trials.how_reduced(trace.program.reductions, attempt)

    def _data_loss(self, labels: Labels, predictions: Any) -> float:
        variables = all_variables(self.model)
        mapping = [(variable, module().value_of(variable)) for variable in variables]
        with keras.StatelessScope(mapping, initialize_variables=False):
            value = data_loss(self.model, self.loss, labels, predictions, self.request.training)
            return float(keras.ops.convert_to_numpy(value))


def _values_of(model: Any) -> list[Any]:
    return [module().value_of(variable) for variable in all_variables(model)]
