"""One forward pass with its loss, as a function of the data, in eager mode or in any graph.

`eager` and `graph` differentiate it, each in its way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import tensorflow as tf

from throughtime._memory.budget import Budget, Need
from throughtime.adapters.keras.every_step import EveryStep
from throughtime.adapters.keras.meter import Meter
from throughtime.adapters.keras.reductions import Labels, Reductions
from throughtime.adapters.keras.seen import Result, SeenCall
from throughtime.adapters.keras.size import need
from throughtime.adapters.keras.wanted import watched
from throughtime.adapters.records import Request

from . import dialect
from .find import Found
from .internals import autograph_enabled
from .loss import Loss
from .tap import Mark, Recorder
from .variables import numbers_of

# Arrays of a batch -> Result.
Traced = Callable[[Any], Result]


class Computation(Protocol):
    """What can be traced and differentiated.

    Attributes
    ----------
    differentiated : dict of int to variable
        Whose gradients are wanted, as `variable.<number>`.
    """

    differentiated: dict[int, Any]

    @property
    def model(self) -> Any:
        """The model whose variables are used."""

    def __call__(self, inputs: Any, mark: Mark) -> tuple[Any, dict[str, Any]]:
        """Return what is differentiated, None for nothing, and the tensors asked for."""


_KEPT = frozenset({"output", "input", "valid"})


class Program:
    """The forward pass of a model that watches chosen layers.

    Attributes
    ----------
    has_loss : bool
        The pass evaluates the loss; `request` asks for no gradients where it does not.
    calls : list of SeenCall
        In call order; known after a pass.
    named : tuple of str
        Keys of what `throughtime.mark` names outside of every loop; known after a pass.
    in_a_loop : set of int
        Layers that were called within a loop or branch of the user's, and not watched there.
    reductions : Reductions
        How the loss reduces samples; known after a pass with a loss.
    adds_losses : bool
        Layers add to the loss by themselves; known after a pass with a loss.
    budget : Budget
        What the next pass may take.
    need : Need
        What a pass takes; known after one.
    masked : bool
        A mask comes along with a prediction; known after a pass.
    """

    def __init__(
        self,
        model: Any,
        found: Sequence[Found],
        loss: Loss,
        request: Request,
        *,
        has_loss: bool,
        at_once: bool,
    ) -> None:
        self.model = model
        self.loss = loss
        self.has_loss = has_loss
        self.training = request.training
        self.calls: list[SeenCall] = []
        self.named: tuple[str, ...] = ()
        self.in_a_loop: set[int] = set()
        self.reductions = Reductions(None, is_certain=False)
        self.adds_losses = False
        self._found = found
        self.request = request
        self._at_once = at_once
        self.budget: Budget | None = None
        self.need = Need()
        self.masked = False
        self._structure: Any = None
        weights = [weight for entry in found for weight in entry.watched.weights]
        is_wanted = has_loss and "weight_gradients" in request.quantities
        self.differentiated = numbered(model, [w for w in weights if is_wanted and w.dtype.is_floating])

    def __call__(self, inputs: Any, mark: Mark) -> tuple[Any, dict[str, Any]]:
        """Run the pass.

        Parameters
        ----------
        inputs : tuple
            x, y, sample weights and the factor by which the loss is scaled, None for 1.
        """
        *data, scale = inputs
        labels = Labels(*data)
        recorder = self._recorder(mark)
        with autograph_enabled(), recorder.watching(self.model):
            predictions = called(self.model, labels.x, self.training)
        masks = [getattr(each, "_keras_mask", None) for each in tf.nest.flatten(predictions)]
        self.masked = any(mask is not None for mask in masks)
        sized = [recorder.sized(each) for each in tf.nest.flatten(predictions) if tf.is_tensor(each)]
        recorder.meter.add_output(sized, is_watched=False, flows_back=recorder.flows_back)
        self.need = recorder.meter.total()
        self._structure = tf.nest.map_structure(lambda _: 0, predictions)
        self.calls, self.in_a_loop = recorder.calls, recorder.in_a_loop
        self.named = tuple(recorder.named)
        if not self.has_loss:
            return None, recorder.tensors
        with autograph_enabled():
            loss = self.loss.total(labels, predictions)
        self.reductions, self.adds_losses = self.loss.reductions(), self.loss.adds_losses()
        tensors = {**recorder.tensors, "loss": loss}
        if not self.reductions.is_certain:
            flat = enumerate(tf.nest.flatten(predictions))
            tensors |= {f"prediction.{index}": tensor for index, tensor in flat}
        return (loss if scale is None else loss * tf.cast(scale, loss.dtype)), tensors

    def _recorder(self, mark: Mark) -> Recorder:
        assert self.budget is not None
        is_repeated = self.has_loss and self.budget.part > 1  # to see whether samples are coupled
        meter = Meter(
            self.budget, self.request, partial(need, dialect), is_repeated=is_repeated, at_once=self._at_once
        )
        quantities = self.request.quantities
        # Kinds of tensors to mark and keep, for the quantities asked for.
        kinds = watched(quantities, has_loss=self.has_loss) | quantities & _KEPT
        return Recorder(self._found, mark, kinds, self.request, meter, self.budget.part)

    def predictions(self, result: Result) -> Any:
        """Give the predictions of a pass the structure the model gave them."""
        count = len(tf.nest.flatten(self._structure))
        flat = [result.tensors[f"prediction.{index}"] for index in range(count)]
        return tf.nest.pack_sequence_as(self._structure, flat)


class WithinSteps:
    """What lies within the steps of a direction, as a computation."""

    def __init__(self, model: Any, every_step: EveryStep) -> None:
        self.model = model
        self._every_step = every_step
        self.differentiated = numbered(model, every_step.weights())

    def __call__(self, inputs: Any, mark: Mark) -> tuple[Any, dict[str, Any]]:
        """Run every step, see `EveryStep`."""
        with autograph_enabled():
            return self._every_step(inputs, mark)


def numbered(model: Any, variables: Sequence[Any]) -> dict[int, Any]:
    """Give variables the numbers that they have in every pass of the model."""
    numbers = numbers_of(model)
    return {numbers[id(variable)]: variable for variable in variables}


def called(model: Any, x: Any, training: bool) -> Any:
    """Call a model as training or as inference."""
    return model(x, training=training)
