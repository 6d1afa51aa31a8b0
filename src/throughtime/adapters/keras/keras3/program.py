"""One forward pass with its loss, as a plain function of variable values and data.

The three `gradient_<backend>` modules differentiate it, each in its framework's way.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras

from throughtime._memory.budget import Budget, Need
from throughtime.adapters.keras.every_step import EveryStep
from throughtime.adapters.keras.meter import Meter
from throughtime.adapters.keras.reductions import Labels, Reductions
from throughtime.adapters.keras.seen import Result, SeenCall, SeenInside
from throughtime.adapters.keras.size import need
from throughtime.adapters.keras.wanted import watched
from throughtime.adapters.records import Request

from . import dialect
from .find import Found
from .internals import keras_mask
from .kept import dropout_keys, inside_tensors, kept, output_of_loop
from .loss import adds_losses, reductions, total
from .tap import Call, Mark, Recorder
from .variables import all_variables, numbers_of

VALID_STEPS = "valid_steps"  # among the tensors of a Result

Traced = Callable[[Sequence[Any], Any], Result]


def weakly(thing: Any) -> Callable[[], Any]:
    """Refer to something that may hold the model: a trace must not keep the model alive through it."""
    try:
        return weakref.ref(thing)
    except TypeError:  # None, a string, or an object that cannot be referred to weakly
        return lambda: thing


class Program:
    """The forward pass of a model that watches chosen layers.

    Holds the model weakly: what is traced from it may live in a cache without keeping the model alive.

    Attributes
    ----------
    differentiated : list of int
        Positions in `all_variables(model)` whose gradients are wanted.
    calls : list of SeenCall
        For each call, in call order; known after a pass.
    named : tuple of str
        Keys of what `throughtime.mark` names outside of every loop; known after a pass.
    reductions : Reductions
        How the loss reduces samples; known after a pass with a loss.
    adds_losses : bool
        Layers add to the loss by themselves; known after a pass with a loss.
    budget : Budget
        What the next pass may take.
    need : Need
        What a pass takes; known after one.
    masked : list of bool
        Whether a mask comes along with each prediction; known after a pass.
    """

    def __init__(
        self,
        model: Any,
        found: Sequence[Found],
        loss: Callable[[], Any],
        request: Request,
        *,
        has_loss: bool,
        at_once: bool,
    ) -> None:
        self._model = weakref.ref(model)
        self._found = [
            (entry.path, entry.is_container, weakref.ref(entry.layer), weakly(entry.outer)) for entry in found
        ]
        self._loss = loss
        self._at_once = at_once
        self.request = request
        self.has_loss = has_loss
        self.differentiated: list[int] = []
        self.calls: list[SeenCall] = []
        self.named: tuple[str, ...] = ()
        self.reductions = Reductions(None, is_certain=False)
        self.adds_losses = False
        self.budget: Budget | None = None
        self.need = Need()
        self.masked: list[bool] = []
        self._structure: Any = None

    def __call__(self, values: Sequence[Any], inputs: Any, mark: Mark) -> tuple[Any, dict[str, Any]]:
        """Run the pass; return what is differentiated, None without a loss, and the tensors asked for.

        Parameters
        ----------
        inputs : tuple
            x, y, sample weights and the factor by which the loss is scaled, None for 1.
        """
        model = self._model()
        found = [Found(path, layer(), container, outer()) for path, container, layer, outer in self._found]
        variables = all_variables(model)
        *data, scale = inputs
        labels = Labels(*data)
        mapping = list(zip(variables, values, strict=True))
        with keras.StatelessScope(mapping, collect_losses=True, initialize_variables=False) as scope:
            recorder = self._recorder(found, mark, scope)
            with recorder.watching(model):
                predictions = called(model, labels.x, self.request.training)
            flat = keras.tree.flatten(predictions)
            recorder.meter.add_output(flat, is_watched=False, flows_back=recorder.flows_back)
            self.need = recorder.meter.total()
            loss = None
            if self.has_loss:
                loss = total(model, self._loss(), labels, predictions, self.request.training)
                self.reductions = reductions(model, self._loss())
                self.adds_losses = adds_losses(model)
        self._structure = keras.tree.map_structure(lambda _: 0, predictions)
        self.calls = [_seen(call, self.request.quantities) for call in recorder.calls]
        self.named = tuple(recorder.named)
        tensors = self._tensors(recorder, predictions, loss)
        return (loss if loss is None or scale is None else loss * keras.ops.cast(scale, loss.dtype)), tensors

    def _recorder(self, found: Sequence[Found], mark: Mark, scope: Any) -> Recorder:
        assert self.budget is not None
        is_repeated = self.has_loss and self.budget.part > 1  # to see whether samples are coupled
        meter = Meter(
            self.budget, self.request, partial(need, dialect), is_repeated=is_repeated, at_once=self._at_once
        )
        kinds = watched(self.request.quantities, has_loss=self.has_loss)
        return Recorder(found, mark, kinds, scope, self.request, meter)

    def predictions(self, result: Result) -> Any:
        """Give the predictions of a pass the structure the model gave them."""
        count = len(keras.tree.flatten(self._structure))
        flat = [result.tensors[f"prediction.{index}"] for index in range(count)]
        return keras.tree.pack_sequence_as(self._structure, flat)

    def _tensors(self, recorder: Recorder, predictions: Any, loss: Any) -> dict[str, Any]:
        """Pick what was asked for; what is not returned need not be computed."""
        tensors: dict[str, Any] = {} if loss is None else {"loss": loss}
        if self.has_loss and not self.reductions.is_certain:
            flat = keras.tree.flatten(predictions)
            tensors.update({f"prediction.{index}": tensor for index, tensor in enumerate(flat)})
        tensors.update(self._valid_steps(predictions))
        tensors.update(recorder.named)
        for call in recorder.calls:
            if "output" in self.request.quantities:
                tensors.update({call.key("output", k): tensor for k, tensor in enumerate(call.outputs)})
            is_asked = "input" in self.request.quantities or call.inside
            if recorder.found[call.index].is_recurrent and is_asked:
                tensors[call.key("input")] = call.input
            if call.mask is not None and "valid" in self.request.quantities:
                tensors[call.key("mask")] = call.mask
            tensors.update(inside_tensors(call, self.request.quantities))
        return tensors

    def _valid_steps(self, predictions: Any) -> dict[str, Any]:
        """Count the steps over which Keras' losses average, where masks come along with predictions."""
        masks = [keras_mask(prediction) for prediction in keras.tree.flatten(predictions)]
        self.masked = [mask is not None for mask in masks]
        if not self.has_loss or len(masks) != 1 or masks[0] is None:
            return {}
        return {VALID_STEPS: keras.ops.sum(keras.ops.cast(masks[0], "float32"))}


def _seen(call: Call, quantities: frozenset[str]) -> SeenCall:
    known = hasattr(call.input, "dtype")
    return SeenCall(
        index=call.index,
        number=call.number,
        group=call.group,
        outputs=len(call.outputs),
        output_dtype=keras.backend.standardize_dtype(call.outputs[0].dtype) if call.outputs else "",
        input_dtype=keras.backend.standardize_dtype(call.input.dtype) if known else "",
        input_shape=tuple(call.input.shape) if known else (),
        has_mask=call.mask is not None,
        logits=call.logits,
        inside=[
            SeenInside(
                weakref.ref(direction.layer),
                direction.sequence is not None,
                direction.mask is not None,
                len(direction.initial),
                dropout_keys(call, part),
                kept(call, part, quantities),
                tuple(direction.handed_on),
                output_of_loop(call, part),
                direction.error is not None,
                direction.draws,
            )
            for part, direction in enumerate(call.inside)
        ],
    )


class WithinSteps:
    """What lies within the steps of a direction, as a plain function of variable values as well."""

    def __init__(self, model: Any, every_step: EveryStep, *, has_loss: bool) -> None:
        self._model, self._every_step = weakref.ref(model), every_step
        numbers = numbers_of(model)
        self.differentiated = sorted(numbers[id(weight)] for weight in every_step.weights())
        self.has_loss = has_loss

    def __call__(self, values: Sequence[Any], inputs: Any, mark: Mark) -> tuple[Any, dict[str, Any]]:
        """Run every step, see `EveryStep`."""
        mapping = list(zip(all_variables(self._model()), values, strict=True))
        with keras.StatelessScope(mapping, initialize_variables=False):
            return self._every_step(inputs, mark)


def called(model: Any, x: Any, training: bool) -> Any:
    """Call a model, in training or not where it makes a difference."""
    if getattr(model, "_call_has_training_arg", True):
        return model(x, training=training)
    return model(x)
