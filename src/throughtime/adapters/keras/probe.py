"""Runs a Keras model once on a batch and returns what was asked for.

Traces are kept per model and freed with it; a recompiled model, other shapes or a changed layer setting
make a new one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from throughtime._errors import LossError
from throughtime._memory.budget import Budget
from throughtime.adapters.loss_reduction import FAILS, tried_factor
from throughtime.adapters.records import MEAN, ModelRecord, Request

from . import batches, find, loss_scale
from .batches import Parts, why_whole
from .collect import Pass, records
from .dialect import Dialect, Result, Traced
from .library import plain_settings
from .loss import Loss
from .outer_steps import joined
from .program import Program, Traces, weakly
from .reductions import COUPLED, Labels, couples, factor

_LOOPED = " where it can be captured: it is called within a loop or branch of the graph"


@dataclass
class _Trace:
    """A traced program, and what was learned while it ran."""

    program: Program
    run: Traced
    loss: Callable[[], Any]
    is_scaled: bool
    tried: tuple[float, str] | None = None
    is_coupled: bool | None = None


_traces: Traces[_Trace] = Traces()


class Probe:
    """Captures chosen layers of one Keras model.

    Parameters
    ----------
    keras : Dialect
        Of the model.
    model : Model or Layer
        Built; compiled with a loss unless `loss` is given or no labels will be.
    loss : callable (y_true, y_pred), keras.losses.Loss, str or None
    layers : see `find.select`
    request : Request

    Raises
    ------
    UnsupportedModelError, UnbuiltModelError, LayerNotFoundError
    """

    def __init__(self, keras: Dialect, model: Any, *, loss: Any, layers: Any, request: Request) -> None:
        keras.check_model(model)
        self.keras, self.model, self.request = keras, model, request
        self.loss = Loss(keras, model, loss)
        self.found = find.select(keras, model, layers)
        self._parts = self._new_parts()

    def __call__(self, x: Any, y: Any, sample_weight: Any, budget: Budget) -> ModelRecord:
        """Capture one batch. Structures of arrays; y None for a capture without gradients.

        Raises
        ------
        ExceededError
            The pass would take more than the budget.
        """
        keras = self.keras
        keras.synchronise(self.model)
        data = keras.batch(self.model, x, y, sample_weight)
        batches.check_sizes(keras, *data)
        kept = keras.untouched(self.model)
        with batches.ragged_explained(keras, x), kept, kept:
            trace, result = self._pass(data, budget)
            reduced = self._how_reduced(trace, result, data)
            weights = [weight for entry in self.found for weight in entry.watched.weights]
            values = keras.weight_values(self.model, weights)
        calls, joined_result = joined(trace.program.calls, result, keras.numpy)
        done = Pass(
            keras,
            self.model,
            self.found,
            trace.program,
            calls,
            joined_result,
            self._wanted(trace.program.has_loss),
            lambda variable: values[id(variable)],
            _LOOPED if trace.program.in_a_loop else "",
        )
        record = records(done, reduced)
        if budget.part == budget.samples or reduced is None:
            return record
        return self._parts.record(record, reduced[1], trace.program, result, data)

    def samples(self, x: Any) -> int:
        """Count the samples of a batch."""
        return batches.batch_size(self.keras, x)

    def part(self, data: Any, rows: slice) -> Any:
        """Take some of the samples of x, y and sample weights."""
        if rows.start == 0:
            self._parts = self._new_parts()
        return batches.mapped(self.keras, lambda array: array[rows], data)

    def _new_parts(self) -> Parts:
        return Parts(self.keras, self.loss, self._data_loss)

    def why_whole(self, data: Any) -> str:
        """Tell why parts of a batch would not add up to it; empty where nothing known yet says so."""
        return why_whole(self.keras, self.model, data[0], self.request.training)

    def expect_one_layer(self) -> None:
        """Refuse several layers where one is meant."""
        find.selection(self.keras, self.model).expect_one(self.found)

    def _pass(self, data: Any, budget: Budget) -> tuple[_Trace, Result]:
        """Run on a batch; without a loss where there are no labels and the model has none of its own."""
        try:
            trace = self._trace(data, budget)
            return trace, self._run(trace, data)
        except LossError:
            if data[1] is not None:
                raise
        trace = self._new_trace(data, False, budget)
        _traces.set(self.model, self._key(data), trace)
        return trace, self._run(trace, data)

    def _run(self, trace: _Trace, data: Any) -> Result:
        def run(scale: Any) -> Result:
            return trace.run((*data, scale))

        return loss_scale.run_scaled(self.keras, run) if trace.is_scaled else run(None)

    def _wanted(self, has_loss: bool) -> frozenset[str]:
        return self.request.quantities - (frozenset() if has_loss else self.request.gradients)

    def _trace(self, data: Any, budget: Budget) -> _Trace:
        trace = _traces.get(
            self.model,
            self._key(data),
            lambda: self._new_trace(data, self._expects_loss(data), budget),
            # An identity may become another object's.
            lambda trace: trace.loss() is self.loss.identity,
        )
        trace.program.budget = budget
        budget.check(trace.program.need)
        return trace

    def _key(self, data: Any) -> Any:
        loss, found = self.loss, [entry.watched for entry in self.found]
        return (
            batches.shapes(self.keras, data),
            loss.passed if isinstance(loss.passed, str) else id(loss.identity),
            tuple(map(id, found)),
            self.request.quantities,
            self.request.training,
            self.keras.execution(self.model),
            plain_settings(self.model),
        )

    def _expects_loss(self, data: Any) -> bool:
        """Whether there are labels, or a loss of the model's own that may need none."""
        if data[1] is None:
            return self.loss.may_do_without_labels()
        self.loss.check()
        return True

    def _new_trace(self, data: Any, has_loss: bool, budget: Budget) -> _Trace:
        keras, model = self.keras, self.model
        request = replace(self.request, quantities=self._wanted(has_loss))
        passed = weakly(self.loss.passed) if has_loss else None
        program = Program(keras, model, self.found, passed, request, budget)
        is_scaled = has_loss and loss_scale.is_needed(model)
        inputs = (*data, np.asarray(1.0, np.float32) if is_scaled else None)
        run = keras.traced(program, inputs)
        return _Trace(program, run, weakly(self.loss.identity), is_scaled)

    def _how_reduced(self, trace: _Trace, result: Result, data: Any) -> tuple[float, str] | None:
        """Find what the loss puts on each sample's gradient, and say in words what was done about it."""
        if not trace.program.has_loss:
            return None
        keras, size = self.keras, batches.batch_size(self.keras, data[0])
        reduced, told = self._factor(trace, result, data, size)
        if trace.is_coupled is None:  # tried on the first batch

            def run_among_copies() -> Result:
                return self._run(trace, batches.with_copies(keras, data, size))

            trace.is_coupled = size > 1 and couples(keras, result, run_among_copies, size)
        if trace.is_coupled and not told.startswith(COUPLED):
            told = f"{COUPLED}: the output of one sample depends on the others of its batch; {told} undone"
        return reduced, told

    def _factor(self, trace: _Trace, result: Result, data: Any, size: int) -> tuple[float, str]:
        """Read the factor from what the loss declares, or try it on the first batch."""
        how, (x, y, weight) = trace.program.reductions, data
        first_weight = batches.first_array(self.keras, weight)
        if how.declared is not None and how.is_certain:
            return factor(how.declared, first_weight, size)
        if not self.loss.has_data_loss():
            return 1.0, "not undone, the whole loss is added by layers"
        if trace.tried is None:
            # Where Keras puts weights on, they are no part of what a user's loss does by itself.
            whole = x, y, weight if how.declared is None else None, trace.program.predictions(result)

            def loss_of(*rows: int) -> float:
                *labels, predictions = (batches.rows_of(self.keras, part, rows) for part in whole)
                return self._data_loss(Labels(*labels), predictions)

            trace.tried = tried_factor(loss_of, size, (Exception,))
        if how.declared is not None and trace.tried[1].startswith((MEAN, FAILS)):
            return factor(how.declared, first_weight, size)
        return trace.tried

    def _data_loss(self, labels: Labels, predictions: Any) -> float:
        def evaluate(inputs: Any) -> Any:
            *parts, predicted = inputs
            return self.loss.of_data(Labels(*parts), predicted, self.request.training)

        inputs = (labels.x, labels.y, labels.sample_weight, predictions)
        return self.keras.evaluated_once(self.model, evaluate, inputs)
