"""Runs a Keras 2 model once on a batch and returns what was asked for; keeps what it has traced."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from throughtime._errors import AmbiguousLayerError, LossError
from throughtime._memory.budget import Budget
from throughtime.adapters.keras import loss_scale
from throughtime.adapters.keras.collect import Pass, records
from throughtime.adapters.keras.coupling import couples
from throughtime.adapters.keras.every_step import EveryStep
from throughtime.adapters.keras.library import belongs_to_a_graph
from throughtime.adapters.keras.reductions import Attempt, Labels, Trials
from throughtime.adapters.keras.second_pass import SecondPass
from throughtime.adapters.keras.seen import Result
from throughtime.adapters.records import ModelRecord, Request

from . import dialect, eager, find, graph
from .arrays import arrays, batch_size, check_sizes, first_sample, rows_of, shapes, with_copies
from .loss import Loss
from .models import check_model, needs_its_batch, plain_settings, weight_values
from .parts import Parts, why_whole
from .program import Program, Traced, WithinSteps
from .restore import untouched

_KEPT_TRACES = 8  # a loop over many batch shapes must not pile up compiled programs


@dataclass
class _Trace:
    """A traced program, and what was learned while it ran."""

    program: Program
    run: Traced
    second: SecondPass
    is_scaled: bool
    loss: Any  # its identity, which must not become another object's
    trials: Trials = field(default_factory=Trials)


class Probe:
    """Captures chosen layers of one Keras 2 model.

    Parameters
    ----------
    model : Model or Layer of tf_keras, or of the Keras 2 that came with TensorFlow
        Built; compiled with a loss unless `loss` is given or no labels will be.
    loss : callable (y_true, y_pred), Loss, str or None
    layers : see `find.select`
    request : Request

    Raises
    ------
    UnsupportedModelError, UnbuiltModelError, LayerNotFoundError
    """

    def __init__(self, model: Any, *, loss: Any, layers: Any, request: Request) -> None:
        check_model(model)
        self.model = model
        self.loss = Loss(model, loss)
        self.request = request
        self.found = find.select(model, layers)
        self._traces: OrderedDict[Any, _Trace] = OrderedDict()
        self._parts = Parts(model, self._data_loss)

    def __call__(self, x: Any, y: Any, sample_weight: Any, budget: Budget) -> ModelRecord:
        """Capture one batch. Structures of arrays; y None for a capture without gradients.

        Raises
        ------
        ExceededError
            The pass would take more than the budget.
        """
        data = tuple(map(arrays, (x, y, sample_weight)))
        check_sizes(*data)
        kept = untouched(self.model)
        with kept, kept:
            trace, result = self._pass(data, budget)
            reduced = self._how_reduced(trace, result, data)
            within = trace.second(trace.program.calls, result)
            wanted = self._wanted(trace.program.has_loss)
            values = weight_values(self.model, self.found)
        inside = bool(trace.program.in_a_loop)
        why = " where it can be watched: it is called within a loop or branch of the graph" if inside else ""
        done = Pass(
            dialect,
            self.model,
            self.found,
            trace.program,
            result,
            wanted,
            within,
            lambda variable: values[id(variable)],
            why,
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
            self._parts = Parts(self.model, self._data_loss)
        return tf.nest.map_structure(lambda array: None if array is None else array[rows], data)

    def why_whole(self, data: Any) -> str:
        """Tell why parts of a batch would not add up to it; empty where nothing known yet says so."""
        return why_whole(self.model, data[0], self.request.training)

    def expect_one_layer(self) -> None:
        """Refuse several layers where one is meant."""
        if len(self.found) > 1:
            paths = ", ".join(entry.path for entry in self.found)
            raise AmbiguousLayerError(
                f"The model has {len(self.found)} recurrent layers, {paths}: choose one with layer_name= or "
                f"layer_idx=.\n{find.selection(self.model).listing()}"
            )

    def _pass(self, data: Any, budget: Budget) -> tuple[_Trace, Result]:
        """Run on a batch; without a loss where there are no labels and the model has none of its own."""
        try:
            trace = self._trace(data, self._expects_loss(data), budget)
            return trace, self._run(trace, data)
        except LossError:
            if data[1] is not None:
                raise
        trace = self._trace(data, False, budget)
        return trace, self._run(trace, data)

    def _run(self, trace: _Trace, data: Any) -> Result:
        def run(scale: Any) -> Result:
            return trace.run((*data, scale))

        return loss_scale.run_scaled(dialect, run) if trace.is_scaled else run(None)

    def _expects_loss(self, data: Any) -> bool:
        """Whether there are labels, or a loss of the model's own that may need none."""
        if data[1] is None:
            return self.loss.may_do_without_labels()
        self.loss.check()
        return True

    def _wanted(self, has_loss: bool) -> frozenset[str]:
        return self.request.quantities - (frozenset() if has_loss else self.request.gradients)

    def _trace(self, data: Any, has_loss: bool, budget: Budget) -> _Trace:
        identity = self.loss.identity
        key = shapes(data), has_loss, id(identity), plain_settings(self.model)
        if key not in self._traces:
            self._traces[key] = self._new_trace(data, has_loss, budget)
        self._traces[key].program.budget = budget
        budget.check(self._traces[key].program.need)
        self._traces.move_to_end(key)
        while len(self._traces) > _KEPT_TRACES:
            self._traces.popitem(last=False)
        return self._traces[key]

    def _new_trace(self, data: Any, has_loss: bool, budget: Budget) -> _Trace:
        request = replace(self.request, quantities=self._wanted(has_loss))
        at_once = bool(getattr(self.model, "run_eagerly", False))
        program = Program(self.model, self.found, self.loss, request, has_loss=has_loss, at_once=at_once)
        program.budget = budget
        is_scaled = has_loss and loss_scale.is_needed(dialect, self.model)
        inputs = (*data, np.float32(1.0) if is_scaled else None)
        run = self._tracer(any_batch=not needs_its_batch(self.model))(program, inputs)
        second = SecondPass(dialect, self._traced_within, request, is_scaled)
        return _Trace(program, run, second, is_scaled, self.loss.identity)

    def _traced_within(self, every_step: EveryStep, inputs: Any, has_loss: bool) -> Traced:
        return self._tracer(any_batch=False)(WithinSteps(self.model, every_step), inputs)

    def _tracer(self, *, any_batch: bool) -> Callable[[Any, Any], Traced]:
        if belongs_to_a_graph(self.model):
            return graph.trace
        step_by_step = bool(getattr(self.model, "run_eagerly", False))
        return partial(eager.trace, step_by_step=step_by_step, any_batch=any_batch)

    def _how_reduced(self, trace: _Trace, result: Result, data: Any) -> tuple[float, str] | None:
        """Find what the loss puts on each sample's gradient, and say in words what was done about it."""
        if not trace.program.has_loss:
            return None
        size = batch_size(data[0])
        attempt = Attempt(
            Labels(*data),
            size,
            weight=None,
            predictions=lambda: trace.program.predictions(result),
            evaluate=self._data_loss,
            rows_of=rows_of,
            has_data_loss=self.loss.has_data_loss,
            couples=lambda: couples(
                result, lambda: self._run(trace, with_copies(data, size)), size, first_sample
            ),
        )
        return trace.trials.how_reduced(trace.program.reductions, attempt)

    def _data_loss(self, labels: Labels, predictions: Any) -> float:
        def evaluate(inputs: Any) -> Any:
            *parts, predicted = inputs
            return self.loss.of_data(Labels(*parts), predicted)

        inputs = (labels.x, labels.y, labels.sample_weight, predictions)
        if belongs_to_a_graph(self.model):
            return float(graph.evaluate(self.model, evaluate, inputs))
        return float(evaluate(tf.nest.map_structure(_tensor, inputs)))


def _tensor(array: Any) -> Any:
    return None if array is None else tf.convert_to_tensor(array)
