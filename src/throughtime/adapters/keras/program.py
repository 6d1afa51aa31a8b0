"""One forward pass with its loss, and what lies within the steps of a layer, as functions of the data.

Each Keras differentiates them in its framework's way, see `Dialect.traced`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

from throughtime._memory.budget import Budget, Need
from throughtime.adapters.marking import listening
from throughtime.adapters.records import Request

from .dialect import Dialect
from .every_step import EveryStep
from .find import Found
from .loss import Loss
from .meter import Meter
from .recorder import CARRIED, Mark, Recorder
from .reductions import Labels, Reductions
from .seen import Result, SeenCall
from .tap import watching
from .traces import weakly
from .wanted import watched

VALID_STEPS = "valid_steps"  # among the tensors of a Result
_KEPT = frozenset({"output", "input", "valid"})


class Program:
    """The forward pass of a model that watches chosen layers.

    Holds the model weakly: what is traced from it lives in a cache without keeping the model alive.

    Parameters
    ----------
    loss : callable () -> the loss that was passed
        None for a pass without a loss.

    Attributes
    ----------
    differentiated : dict of int to variable
        Whose gradients are wanted, as `variable.<number>`.
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
    masked : list of bool
        Whether a mask comes along with each prediction; known after a pass.
    """

    def __init__(
        self,
        keras: Dialect,
        model: Any,
        found: Sequence[Found],
        loss: Callable[[], Any] | None,
        request: Request,
        budget: Budget,
    ) -> None:
        self.any_batch = True
        self._keras, self._model, self._loss = keras, weakref.ref(model), loss
        # Without the layers, which hold the model.
        self._found = [
            (entry.path, weakly(entry.layer), weakly(entry.watched), entry.is_container, weakly(entry.outer))
            for entry in found
        ]
        self.request, self.has_loss, self.budget = request, loss is not None, budget
        self.calls: list[SeenCall] = []
        self.named: tuple[str, ...] = ()
        self.in_a_loop: set[int] = set()
        self.reductions = Reductions(None, is_certain=False)
        self.adds_losses = False
        self.need = Need()
        self.masked: list[bool] = []
        self._structure: Any = None
        is_wanted = self.has_loss and "weight_gradients" in request.quantities
        weights = [weight for entry in found for weight in entry.watched.weights] if is_wanted else []
        self.differentiated = numbered(keras, model, [weight for weight in weights if keras.is_float(weight)])

    @property
    def model(self) -> Any:
        """The model."""
        return self._model()

    def __call__(self, inputs: Any, mark: Mark) -> tuple[Any, dict[str, Any]]:
        """Run the pass; return what is differentiated, None without a loss, and the tensors asked for.

        Parameters
        ----------
        inputs : tuple
            x, y, sample weights and the factor by which the loss is scaled, None for 1.
        """
        keras, model, training = self._keras, self.model, self.request.training
        *data, scale = inputs
        labels, recorder = Labels(*data), self._recorder(mark)
        with watching(recorder, model), listening(recorder.hear):
            predictions = keras.called(model, labels.x, training)
        flat = keras.tree.flatten(predictions)
        recorder.measure_output(flat, is_watched=False)
        self.need = recorder.meter.total()
        self._structure = keras.tree.map_structure(lambda _: 0, predictions)
        self.calls, self.in_a_loop = recorder.calls, recorder.in_a_loop
        self.named = tuple(recorder.named)
        masks = [keras.beside(prediction, CARRIED[0]) for prediction in flat]
        self.masked = [mask is not None for mask in masks]
        if self._loss is None:
            return None, recorder.tensors
        own = Loss(keras, model, self._loss())
        loss = own.total(labels, predictions, training)
        self.reductions, self.adds_losses = own.reductions(), keras.adds_losses(model)
        tensors = {**recorder.tensors, "loss": loss}
        if self.masked == [True]:  # the steps over which the mean is taken
            tensors[VALID_STEPS] = keras.ops.sum(keras.ops.cast(masks[0], "float32"))
        if not self.reductions.is_certain:
            tensors |= {f"prediction.{index}": tensor for index, tensor in enumerate(flat)}
        return (loss if scale is None else loss * keras.ops.cast(scale, loss.dtype)), tensors

    def _recorder(self, mark: Mark) -> Recorder:
        keras, quantities, part = self._keras, self.request.quantities, self.budget.part
        is_repeated = self.has_loss and part > 1  # to see whether samples are coupled
        at_once = keras.runs_at_once(self.model)
        meter = Meter(keras, self.budget, self.request, is_repeated=is_repeated, at_once=at_once)
        kinds = watched(quantities, has_loss=self.has_loss) | quantities & _KEPT
        found = [
            Found(path, layer(), inner(), container, outer())
            for path, layer, inner, container, outer in self._found
        ]
        return Recorder(keras, found, mark, kinds, self.request, meter)

    def predictions(self, result: Result) -> Any:
        """Give the predictions of a pass the structure the model gave them."""
        tree = self._keras.tree
        count = len(tree.flatten(self._structure))
        return tree.pack_sequence_as(
            self._structure, [result.tensors[f"prediction.{index}"] for index in range(count)]
        )


class WithinSteps:
    """What lies within the steps of a direction."""

    def __init__(self, keras: Dialect, model: Any, every_step: EveryStep, *, has_loss: bool) -> None:
        self._model, self._every_step = weakref.ref(model), every_step
        self.has_loss, self.any_batch = has_loss, False
        self.differentiated = numbered(keras, model, every_step.weights())

    @property
    def model(self) -> Any:
        """The model."""
        return self._model()

    def __call__(self, inputs: Any, mark: Mark) -> tuple[Any, dict[str, Any]]:
        """Run every step, see `EveryStep`."""
        return self._every_step(inputs, mark)


def numbered(keras: Dialect, model: Any, variables: Sequence[Any]) -> dict[int, Any]:
    """Give variables the numbers that they have in every pass of the model."""
    numbers = keras.numbers_of(model)
    return {numbers[id(variable)]: variable for variable in variables}
