"""One forward pass with its loss, and what lies within the steps of its layers, as a function of the data.

Each Keras traces and differentiates it in its framework's way, see `dialect.Passes`.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from throughtime._memory.budget import Budget, Need
from throughtime.adapters.marking import listening
from throughtime.adapters.needs import INSIDE, INSIDE_GRADIENTS
from throughtime.adapters.records import Request

from .dialect import Dialect, Mark, Result
from .every_step import EveryStep, Recorded
from .find import Found
from .library import is_float
from .loss import Loss
from .meter import Meter
from .recorder import CARRIED, Recorder, SeenCall, SeenInside
from .reductions import Labels, Reductions
from .tap import watching

VALID_STEPS = "valid_steps"  # among the tensors of a Result
_KEPT = frozenset({"output", "input", "valid"})
# Kinds of tensors to mark and keep, by what they are needed for.
_NEEDED_FOR = {
    "inside": INSIDE,
    "inside_gradients": INSIDE_GRADIENTS,
    "outputs": INSIDE_GRADIENTS | {"output_gradient"},
    "logits": frozenset({"output_gradient", "logits_gradient"}),
    "inputs": frozenset({"input_gradient", "certificate"}),
    "weights": frozenset({"certificate"}),
}
Trace = TypeVar("Trace")
_MOST = 8  # per model; a loop over many batch shapes must not pile up compiled programs


class Program:
    """The forward pass of a model that watches chosen layers.

    Holds the model weakly: what is traced from it lives in a cache without keeping the model alive.

    Parameters
    ----------
    loss : callable () -> the loss that was passed
        None for a pass without a loss.

    Attributes
    ----------
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

    @property
    def model(self) -> Any:
        """The model."""
        return self._model()

    def variables(self) -> dict[str, Any]:
        """Return the variables whose gradients are wanted, by their keys in a pass."""
        is_wanted = self.has_loss and "weight_gradients" in self.request.quantities
        watched = [entry[2]() for entry in self._found] if is_wanted else []
        weights = {id(weight): weight for layer in watched for weight in layer.weights}
        own = [weight for weight in weights.values() if is_float(self._keras.dtype_of(weight))]
        return {f"variable.{number}": weight for number, weight in enumerate(own)}

    def __call__(self, inputs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Run the pass; return the tensors asked for, and gradients.

        Parameters
        ----------
        inputs : tuple
            x, y, sample weights and the factor by which the loss is scaled, None for 1.
        """
        forward = partial(self._forward, inputs)
        (tensors, loops), gradients = self._keras.differentiated(self.model, forward, self.variables())
        for call in self.calls:
            for part, known in enumerate(call.inside):
                name = call.key("within", part)
                if name in loops:
                    left, found = self._within(call, part, known, loops[name], gradients)
                    tensors, gradients = tensors | left, gradients | found
        return tensors, gradients

    def _within(
        self, call: SeenCall, part: int, known: SeenInside, left: dict[str, Any], first: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Find what lies within the steps of one direction, from what its loop left and its gradients."""
        taps = {name: first.get(call.key(f"tap_{name}", part)) for name in left["kept"]}
        gradients = {name: gradient for name, gradient in taps.items() if gradient is not None}
        recorded = Recorded(**left, gradients=gradients)
        step = EveryStep(self._keras, known.layer(), known.handed_on, self.request, recorded)

        def key(name: str) -> str:
            return call.key(f"within_{name}", part)

        def forward(mark: Mark) -> tuple[Any, dict[str, Any]]:
            loss, found = step(lambda name, tensor: mark(key(name), tensor))
            return loss, {key(name): tensor for name, tensor in found.items()}

        weights = {key(name): weight for name, weight in step.weights().items()}
        return self._keras.differentiated(self.model, forward, weights)

    def _forward(self, inputs: Any, mark: Mark) -> tuple[Any, tuple[dict[str, Any], dict[str, Any]]]:
        """Run the model and its loss; keep the tensors asked for, and what the loops have left."""
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
            return None, (recorder.tensors, recorder.loops)
        own = Loss(keras, model, self._loss())
        loss = own.total(labels, predictions, training)
        self.reductions, self.adds_losses = own.reductions(), keras.adds_losses(model)
        tensors = {**recorder.tensors, "loss": loss}
        if self.masked == [True]:  # the steps over which the mean is taken
            tensors[VALID_STEPS] = keras.ops.sum(keras.ops.cast(masks[0], "float32"))
        if not self.reductions.is_certain:
            tensors |= {f"prediction.{index}": tensor for index, tensor in enumerate(flat)}
        scaled = loss if scale is None else loss * keras.ops.cast(scale, loss.dtype)
        return scaled, (tensors, recorder.loops)

    def _recorder(self, mark: Mark) -> Recorder:
        keras, quantities, part = self._keras, self.request.quantities, self.budget.part
        is_repeated = self.has_loss and part > 1  # to see whether samples are coupled
        at_once = keras.runs_at_once(self.model)
        meter = Meter(keras, self.budget, self.request, is_repeated=is_repeated, at_once=at_once)
        kinds = frozenset(kind for kind, needs in _NEEDED_FOR.items() if quantities & needs)
        kinds = (kinds if self.has_loss else kinds & {"inside"}) | quantities & _KEPT
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


class Traces(Generic[Trace]):
    """Traces by model and key; what they hold must not hold the model."""

    def __init__(self) -> None:
        self._kept: weakref.WeakKeyDictionary[Any, OrderedDict[Any, Trace]] = weakref.WeakKeyDictionary()

    def get(
        self,
        model: Any,
        key: Any,
        make: Callable[[], Trace],
        is_current: Callable[[Trace], bool] = lambda _: True,
    ) -> Trace:
        """Return the trace of a key; make it where there is none yet, or one that is current no longer."""
        kept = self._kept.setdefault(model, OrderedDict())
        if key not in kept or not is_current(kept[key]):
            kept[key] = make()
        kept.move_to_end(key)
        while len(kept) > _MOST:
            kept.popitem(last=False)
        return kept[key]

    def set(self, model: Any, key: Any, trace: Trace) -> None:
        """Put a trace in the place of the one that `get` returned."""
        self._kept[model][key] = trace


def weakly(thing: Any) -> Callable[[], Any]:
    """Refer to something that may hold the model: a trace must not keep the model alive through it."""
    try:
        return weakref.ref(thing)
    except TypeError:  # None, a string, or an object that cannot be referred to weakly
        return lambda: thing
