"""Runs a torch module once on a batch and returns what was asked for; nothing is kept between batches."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

import torch

from throughtime._common.memory.budget import Budget, ExceededError
from throughtime._errors import BatchError, ThroughTimeError
from throughtime.adapters.loss_reduction import Alike, Loss, of_loss
from throughtime.adapters.marking import listening
from throughtime.adapters.records import ModelRecord, Request
from throughtime.adapters.selection import is_open

from . import collect, find, structure
from .loss import autocast_off, call, check_loss, labels_beside, place, total, tried_factor
from .marks import Gradients
from .passes import Call, Pass
from .restore import gradients_on, stand_in, untouched
from .structure import Data, T
from .tap import Recorder


class Probe:
    """Captures the layers of one torch module that `layers` chooses, see `selection.Selection.select`.

    A compiled or parallel module is unwrapped; nothing of it stays changed. `loss` is a callable (output, y)
    that returns a scalar or one value per sample, or None.
    """

    def __init__(self, model: torch.nn.Module, *, loss: Loss, layers: object, request: Request) -> None:
        self.model = find.checked(model)
        self.loss = loss
        self.request = request
        self._selection = find.selection(self.model)
        self.found = self._selection.select(layers)
        self._is_open = is_open(layers)
        self._candidates = find.candidates(self.model, self.found, is_open=self._is_open)
        self._samples = structure.Samples(0)
        self._alike: Alike[Data] | None = None  # while a batch is captured in parts

    def __call__(self, x: object, y: object, sample_weight: object, budget: Budget) -> ModelRecord:
        """Capture one batch, without gradients if y is None; ExceededError if the budget is too small."""
        if y is not None:
            check_loss(self.loss)
        kept = untouched(self.model, self.loss)
        with kept, kept, gradients_on():
            return self._captured(x, y, sample_weight, budget)

    def samples(self, x: object) -> int:
        """Count the first axis of a batch: samples, unless a pass finds another axis."""
        for leaf in structure.leaves(x):
            if structure.is_packed(leaf):
                return int(leaf.batch_sizes[0])
            if getattr(leaf, "shape", ()):
                return int(leaf.shape[0])
        return 1

    def part(self, data: T, rows: slice) -> T:
        """Take some of the samples of x, y and sample weights; known after a pass was too large."""
        if rows.start == 0:
            self._alike = None
        return self._samples.part(data, rows)

    def why_whole(self, data: Data) -> str:
        """Tell why parts of a batch would not add up to it; known after a pass was too large."""
        return self._samples.why_whole(data, training=self.request.training)

    def expect_one_layer(self) -> None:
        """Refuse several layers where one is meant."""
        self._selection.expect_one(self.found)

    def _captured(self, x: object, y: object, sample_weight: object, budget: Budget) -> ModelRecord:
        has_labels = y is not None
        wanted = self.request.quantities - (frozenset() if has_labels else self.request.gradients)
        watched = [entry.layer for entry in (*self.found, *self._candidates)]
        frozen = [id(weight) for weight in self.model.parameters() if not weight.requires_grad]
        originals = _weights(watched)
        stand_ins = stand_in(self.model, self.loss, watched, training=self.request.training)
        inputs = structure.copied(x, *place(self.model))
        recorder = Recorder(self.found, self._candidates, wanted, inputs, budget)
        output = self._forward(recorder, inputs)
        recurrences = recorder.recurrences()
        loss = None
        if has_labels:
            data = output, *labels_beside(self.model, y, sample_weight, output, recorder)
            loss = total(self.loss, *data)
        recorder.close()
        found = self._found(recurrences, has_marks=bool(recorder.named))
        weights = _weights([entry.layer for entry in found]) if "weight_gradients" in wanted else []
        reduced = tried_factor(self.loss, data, recorder.sizes) if has_labels else None
        keep = any(map(_is_asked_later, recorder.calls))
        gradients = recorder.differentiate(loss, weights, found, keep=keep)
        if has_labels:
            self._add_penalty(gradients, originals if weights else [], stand_ins, data)
        done = Pass(
            model=self.model,
            found=found,
            calls=recorder.calls_of(found),
            gradients=gradients,
            wanted=wanted,
            stand_ins={id(weight) for weight in stand_ins.values()},
            frozen={id(stand_ins[weight]) for weight in frozen if weight in stand_ins},
            has_labels=has_labels,
            time_major=recorder.time_major,
            output_axes=max((tensor.ndim for tensor in structure.tensors(output)), default=0),
            named=recorder.named_outside(),
        )
        record = collect.records(done, loss, reduced, training=self.request.training)
        if budget.part == budget.samples or reduced is None:
            return record
        return self._of_a_part(record, recorder, reduced[1], data)

    def _of_a_part(self, record: ModelRecord, recorder: Recorder, how: str, data: Data) -> ModelRecord:
        """Note what a part of a batch counts for, and whether it adds up with the others."""
        part = structure.Samples(recorder.sizes[0], recorder.time_major)
        why_whole = of_loss(how)
        if not why_whole:
            axes = structure.axes_of(data, part.axis)
            if self._alike is None:
                rows, both = partial(structure.rows_of, axes=axes), partial(structure.join, axes=axes)
                self._alike = Alike(lambda data: float(total(self.loss, *data)), rows, both, how)
            with torch.no_grad(), autocast_off(data[0]):
                why_whole = self._alike.why_not(data, part.count)
        return replace(record, weight=float(part.count), why_whole=why_whole)

    def _found(self, recurrences: Sequence[Call], *, has_marks: bool) -> list[find.Found]:
        """Add the recurrences to the layers asked for; of what lies within them nothing."""
        entries = list({call.entry.path: call.entry for call in recurrences}.values())
        if not self.found and not entries and not has_marks:
            self._selection.refuse(find.UNSEEN)
        paths = [f"{entry.path}/" for entry in entries] if self._is_open else []
        outside = [one for one in self.found if not one.path.startswith(tuple(paths))]
        for each in recurrences:
            each.is_beside = any(one.path.startswith(f"{each.entry.path}/") for one in outside)
        return [*outside, *(entry for entry in entries if entry not in outside)]

    def _add_penalty(
        self,
        gradients: Gradients,
        weights: Sequence[torch.Tensor],
        stand_ins: Mapping[int, torch.Tensor],
        data: Data,
    ) -> None:
        """Add what a loss that holds parameters, the originals, asks of them, as a penalty does."""
        held = [one for one in weights if id(one) in stand_ins]
        output, *labels = data
        value = total(self.loss, structure.mapped(_detached, output), *labels) if held else None
        if value is None or not value.requires_grad:
            return
        found = torch.autograd.grad(value, held, retain_graph=True, allow_unused=True)
        for weight, gradient in zip(held, found, strict=True):
            if gradient is not None:
                gradients.add(stand_ins[id(weight)], gradient)

    def _forward(self, recorder: Recorder, inputs: object) -> object:
        """Run the model; where that is too much, note where its samples stand."""
        recorder.watch(self.model)
        meter = recorder.meter
        try:
            with listening(recorder.hear):
                output = call(self.model, inputs)
            meter.add_output(structure.tensors(output), is_watched=False)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            if not recorder.unfit or isinstance(error, ThroughTimeError):
                raise
            raise BatchError(
                f"The model cannot run on x of shape {structure.shapes(inputs)}: {recorder.unfit}."
            ) from error
        except ExceededError:
            if meter.budget.part == meter.budget.samples:
                self._samples = structure.Samples(meter.budget.samples, recorder.time_major)
            raise
        return output


def _is_asked_later(call: Call) -> bool:
    """Whether gradients are taken back once more: through a module, or a change between calls."""
    loop = call.recurrence
    if loop is None or len(loop.steps) < 2:
        return False
    if call.kind == "rnn" or loop.steps[0].layers:
        return True
    return not all(
        after.entering[state.argument].taken is before.leaving[state.place].plain
        for before, after in pairwise(loop.steps)
        for state in loop.states
    )


def _detached(leaf: object) -> object:
    if structure.is_packed(leaf):
        return leaf._replace(data=leaf.data.detach())
    return leaf.detach() if isinstance(leaf, torch.Tensor) else leaf


def _weights(watched: list[torch.nn.Module]) -> list[torch.Tensor]:
    """Give the parameters of the watched layers that have a gradient, each once."""
    parameters = {id(weight): weight for module in watched for weight in module.parameters()}
    return [weight for weight in parameters.values() if weight.requires_grad]
