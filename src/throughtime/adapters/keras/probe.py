"""Runs a Keras model once on a batch and returns what was asked for.

Traces are kept per model and freed with it; a recompiled model, other shapes or a changed layer setting
make a new one.
"""

from dataclasses import replace
from functools import partial

from throughtime._common.memory.budget import Budget
from throughtime._errors import LossError
from throughtime.adapters.loss_reduction import FAILS, Alike, tried_factor
from throughtime.adapters.records import MEAN, ModelRecord, Request

from . import batches, find
from .collect import Pass, records
from .contracts import Data, Model, T, Tensor
from .dialect import Dialect, Result
from .library import synchronise
from .loss import Loss
from .program import Program, Traces
from .recorder import joined
from .reductions import COUPLED, Labels, couples, factor, first_sample

_traces: Traces[Program] = Traces()


class Probe:
    """Captures chosen layers of one Keras model, built, and compiled unless `loss` is given.

    UnsupportedModelError, UnbuiltModelError and LayerNotFoundError as `capture` describes them.
    """

    def __init__(
        self, keras: Dialect, model: Model, *, loss: object, layers: object, request: Request
    ) -> None:
        keras.check_model(model)
        self.keras, self.model, self.request = keras, model, request
        self.loss = Loss(keras, model, loss)
        self.found = find.selection(keras, model).select(layers)
        self._alike: Alike[Data] | None = None  # while a batch is captured in parts

    def __call__(self, x: object, y: object, sample_weight: object, budget: Budget) -> ModelRecord:
        """Capture one batch, without gradients where y is None; ExceededError if it takes too much memory."""
        keras = self.keras
        synchronise(self.model)
        data = keras.batch(self.model, x, y, sample_weight)
        batches.check_sizes(keras, *data)
        kept = keras.untouched(self.model)
        with batches.ragged_explained(keras, x), kept, kept:
            program, result = self._pass(data, budget)
            reduced = self._how_reduced(program, result, data)
            weights = [weight for entry in self.found for weight in entry.layer.weights]
            values = keras.weight_values(self.model, weights)
        record = records(Pass(program, *joined(program.calls, result), values), reduced)
        if budget.part == budget.samples or reduced is None:
            return record
        return self._of_a_part(record, reduced[1], program, result, data)

    def samples(self, x: object) -> int:
        """Count the samples of a batch."""
        return batches.batch_size(self.keras, x)

    def part(self, data: T, rows: slice) -> T:
        """Take some of the samples of x, y and sample weights."""
        if rows.start == 0:
            self._alike = None
        return batches.mapped(self.keras.tree, lambda array: array[rows], data)

    def _of_a_part(
        self, record: ModelRecord, how: str, program: Program, result: Result, data: Data
    ) -> ModelRecord:
        """Note what a part of a batch counts for, and whether it adds up with the others."""
        samples, why = self.samples(data[0]), batches.why_unlike(program, how)
        if not why and not program.reductions.is_certain:
            if self._alike is None:
                rows, both = partial(batches.rows_of, self.keras), partial(batches.joined, self.keras)
                self._alike = Alike(self._loss_of, rows, both, how)
            why = self._alike.why_not((*data, program.predictions(result)), samples)
        return replace(record, weight=batches.weight(program, result, samples), why_whole=why)

    def why_whole(self, data: Data) -> str:
        """Return why parts of a batch would not add up to it; empty where no reason is known yet."""
        return batches.why_whole(self.keras, self.model, data[0], self.request.training)

    def expect_one_layer(self) -> None:
        """Refuse several layers where one is meant."""
        find.selection(self.keras, self.model).expect_one(self.found)

    def _pass(self, data: Data, budget: Budget) -> tuple[Program, Result]:
        """Run on a batch; without a loss where neither labels nor the model's added losses exist."""
        layers = tuple((id(entry.layer), id(entry.outer)) for entry in self.found)
        asked = layers, self.request.quantities, self.request.training
        program = _traces.get(self.keras, self.loss, data, asked, lambda: self._program(data, budget))
        program.serve(self, budget)
        try:
            return program, self._run(program, data)
        except LossError:
            if data[1] is not None:
                raise
        program.do_without_loss()
        return program, self._run(program, data)

    def _run(self, program: Program, data: Data) -> Result:
        """Run on a batch; on the first one find out whether its samples are coupled."""
        size = self.samples(data[0])
        if not program.has_loss or size == 1 or program.is_coupled is not None:
            return program.run(data)
        copies = None
        try:  # before the batch itself: what two runs return takes twice the memory
            copies = first_sample(program.run(batches.with_copies(self.keras, data, size)), size)
        except MemoryError:
            raise
        except Exception:
            pass
        result = program.run(data)
        program.is_coupled = copies is None or couples(first_sample(result, size), copies)
        return result

    def _program(self, data: Data, budget: Budget) -> Program:
        """Make a program with a loss, if there are labels or the model may need none."""
        if data[1] is None:
            return Program(self, budget, has_loss=self.loss.may_do_without_labels())
        self.loss.check()
        return Program(self, budget, has_loss=True)

    def _how_reduced(self, program: Program, result: Result, data: Data) -> tuple[float, str] | None:
        """Find the factor of the loss on each sample's gradient, and describe in words how it was used."""
        if not program.has_loss:
            return None
        reduced, told = self._factor(program, result, data, self.samples(data[0]))
        if program.is_coupled and not told.startswith(COUPLED):
            told = f"{COUPLED}: the output of one sample depends on the others of its batch; {told} undone"
        return reduced, told

    def _factor(self, program: Program, result: Result, data: Data, size: int) -> tuple[float, str]:
        """Read the factor from what the loss declares, or try it on the first batch."""
        how, (x, y, weight) = program.reductions, data
        first_weight = None if weight is None else batches.first_array(self.keras, weight)
        if how.declared is not None and how.is_certain:
            return factor(how.declared, first_weight, size)
        if not self.loss.has_data_loss():
            return 1.0, "not undone, the whole loss is added by layers"
        if program.tried is None:
            # Where Keras puts weights on, they are no part of what a user's loss does by itself.
            whole = x, y, weight if how.declared is None else None, program.predictions(result)

            def loss_of(*rows: int) -> float:
                return self._loss_of(batches.rows_of(self.keras, whole, rows))

            program.tried = tried_factor(loss_of, size, (Exception,))
        if how.declared is not None and program.tried[1].startswith((MEAN, FAILS)):
            return factor(how.declared, first_weight, size)
        return program.tried

    def _loss_of(self, data: Data) -> float:
        """Evaluate the loss of x, y, sample weights and predictions without what the model adds to it."""

        def evaluate(inputs: Data) -> Tensor:
            *parts, predicted = inputs
            return self.loss.of_data(Labels(*parts), predicted, self.request.training)

        return self.keras.evaluated_once(self.model, evaluate, data)
