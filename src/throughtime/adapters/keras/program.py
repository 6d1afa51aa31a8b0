"""One forward pass with its loss, and what lies within the steps of its layers, as a function of the data.

Each Keras traces and differentiates it in its framework's way, see `dialect.Dialect`; `Traces` keeps the
latest few for a model, and frees them with it.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from throughtime._common.memory.budget import Budget, Need
from throughtime.adapters.marking import listening
from throughtime.adapters.needs import INSIDE, INSIDE_GRADIENTS
from throughtime.adapters.records import Array, Request

from . import loss_scale
from .contracts import Data, Held, Model, Tensor, Variable
from .dialect import Dialect, Mark, Result, Traced
from .every_step import EveryStep
from .library import called, dtype_of, execution, is_float, is_tensor, plain_settings, shape_of
from .loss import Loss
from .meter import Meter
from .recorder import CARRIED, Left, Recorder, SeenCall, SeenInside
from .reductions import Labels, Reductions
from .tap import watching

if TYPE_CHECKING:
    from .probe import Probe

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
    """The forward pass of a probe's model that watches chosen layers, and what was learned while it ran.

    Holds the probe weakly: what is traced lives in a cache without keeping the model alive.
    """

    def __init__(self, probe: Probe, budget: Budget, *, has_loss: bool) -> None:
        self.keras, self.has_loss, self.need = probe.keras, has_loss, Need()
        self.serve(probe, budget)
        self._is_scaled = loss_scale.is_needed(probe.model)
        self._traced: Traced | None = None
        self.calls: list[SeenCall] = []  # in call order
        self.named: tuple[str, ...] = ()  # of what `throughtime.mark` names outside of every loop
        self.in_a_loop: set[int] = set()  # layers called in a loop of the user's, and not watched
        self.reductions = Reductions(None, is_certain=False)
        self.output_axes = 0  # the most of any output
        self.adds_losses = False  # layers add to the loss by themselves
        self.masked: list[bool] = []  # whether a mask comes along with each prediction
        self.tried: tuple[float, str] | None = None  # what trying the loss has shown of its reduction
        self.is_coupled: bool | None = None  # None where nothing has shown it yet
        self._structure: object = None

    def serve(self, probe: Probe, budget: Budget) -> None:
        """Run for this probe from now on; ExceededError where the budget does not suffice."""
        self._probe, self._budget = weakref.ref(probe), budget
        budget.check(self.need)

    @property
    def probe(self) -> Probe:
        """The probe that the program runs for."""
        probe = self._probe()
        assert probe is not None
        return probe

    @property
    def model(self) -> Model:
        """The model."""
        return self.probe.model

    @property
    def request(self) -> Request:
        """The quantities that the probe requests; without a loss no gradients."""
        asked = self.probe.request
        unknown: frozenset[str] = frozenset() if self.has_loss else asked.gradients
        return replace(asked, quantities=asked.quantities - unknown)

    def run(self, data: Data) -> Result:
        """Run on x, y and sample weights; the first batch is traced."""

        def run_at(scale: Array | None) -> Result:
            inputs = (*data, scale)
            if self._traced is None:
                self._traced = self.keras.traced(self.model, self, inputs)
            return self._traced(inputs)

        if self.has_loss and self._is_scaled:
            return loss_scale.run_scaled(run_at)
        return run_at(np.ones((), np.float32) if self.has_loss else None)

    def do_without_loss(self) -> None:
        """Run without a loss from now on."""
        self.has_loss, self._traced = False, None

    def variables(self) -> dict[str, Variable]:
        """Return the variables whose gradients are wanted, by their keys in a pass."""
        is_wanted = self.has_loss and "weight_gradients" in self.request.quantities
        found = self.probe.found if is_wanted else []
        weights = {id(weight): weight for entry in found for weight in entry.layer.weights}
        own = [weight for weight in weights.values() if is_float(dtype_of(weight))]
        return {f"variable.{number}": weight for number, weight in enumerate(own)}

    def __call__(self, inputs: Data) -> Result:
        """Run the pass.

        `inputs` are x, y, sample weights and the factor by which the loss is scaled, None without a loss.
        """
        forward = partial(self._forward, inputs)
        (tensors, loops), gradients = self.keras.differentiated(self.model, forward, self.variables())
        for known in (direction for call in self.calls for direction in call.inside):
            if (name := known.key("within")) in loops:
                left, found = self._within(known, loops[name], gradients)
                tensors, gradients = tensors | left, gradients | found
        return Result(tensors, gradients)

    def _within(self, known: SeenInside, left: Left, first: dict[str, Tensor]) -> Result:
        """Find what lies within the steps of one direction, from what its loop left and its gradients."""
        taps = {name: first.get(known.key(f"tap_{name}")) for name in left["kept"]}
        gradients = {name: gradient for name, gradient in taps.items() if gradient is not None}
        step = EveryStep(
            self.keras, known.layer(), self.request, known.handed_on, known.some, gradients=gradients, **left
        )

        def key(name: str) -> str:
            return known.key(f"within_{name}")

        def forward(mark: Mark) -> tuple[Tensor | None, dict[str, Tensor]]:
            loss, found = step(lambda name, tensor: mark(key(name), tensor))
            return loss, {key(name): tensor for name, tensor in found.items()}

        weights = {key(name): weight for name, weight in step.weights().items()}
        tensors, gradients = self.keras.differentiated(self.model, forward, weights)
        jacobians = step.jacobians(self.model)
        return Result(tensors | {key(name): tensor for name, tensor in jacobians.items()}, gradients)

    def _forward(
        self, inputs: Data, mark: Mark
    ) -> tuple[Tensor | None, tuple[dict[str, Tensor], dict[str, Left]]]:
        """Run the model and its loss; keep the tensors asked for, and what the loops have left."""
        keras, model, training = self.keras, self.model, self.request.training
        *data, scale = inputs
        labels, recorder = Labels(*data), self._recorder(mark)
        with watching(recorder, model), listening(recorder.hear):
            predictions = called(model, labels.x, training)
        flat = keras.tree.flatten(predictions)
        recorder.measure_output(flat, is_watched=False)
        self.need = recorder.meter.total()
        self.output_axes = max((len(shape_of(each)) for each in flat if is_tensor(each)), default=0)
        self._structure = keras.tree.map_structure(lambda _: 0, predictions)
        self.calls, self.in_a_loop = recorder.calls, recorder.in_a_loop
        self.named = tuple(recorder.named)
        masks = [keras.beside(prediction, CARRIED[0]) for prediction in flat]
        self.masked = [mask is not None for mask in masks]
        if not self.has_loss:
            return None, (recorder.tensors, recorder.loops)
        own = Loss(keras, model, self.probe.loss.passed)
        loss = own.total(labels, predictions, training)
        self.reductions = own.reductions()
        self.adds_losses = len(keras.added_losses(model)) > len(keras.regularised(model))
        tensors = {**recorder.tensors, "loss": loss}
        if self.masked == [True]:  # the steps over which the mean is taken
            tensors[VALID_STEPS] = keras.ops.sum(keras.ops.cast(masks[0], "float32"))
        if not self.reductions.is_certain:
            tensors |= {f"prediction.{index}": tensor for index, tensor in enumerate(flat)}
        return loss * keras.ops.cast(scale, loss.dtype), (tensors, recorder.loops)

    def _recorder(self, mark: Mark) -> Recorder:
        keras, request = self.keras, self.request
        at_once = keras.BACKEND == "torch" or bool(getattr(self.model, "run_eagerly", False))
        meter = Meter(keras, self._budget, request, at_once)
        kinds = frozenset(kind for kind, needs in _NEEDED_FOR.items() if request.quantities & needs)
        kinds = (kinds if self.has_loss else kinds & {"inside"}) | request.quantities & _KEPT
        return Recorder(keras, self.probe.found, mark, kinds, request, meter)

    def predictions(self, result: Result) -> object:
        """Give the predictions of a pass the structure the model gave them."""
        tree = self.keras.tree
        count = len(tree.flatten(self._structure))
        return tree.pack_sequence_as(
            self._structure, [result.tensors[f"prediction.{index}"] for index in range(count)]
        )


class Traces(Generic[Trace]):
    """Traces of any model, each for a loss, shapes of a batch and settings; they must not hold the model."""

    def __init__(self) -> None:
        self._kept: weakref.WeakKeyDictionary[Any, OrderedDict[Hashable, tuple[Held, Trace]]] = (
            weakref.WeakKeyDictionary()
        )

    def get(
        self, keras: Dialect, loss: Loss, data: object, asked: Hashable, make: Callable[[], Trace]
    ) -> Trace:
        """Return the trace for a loss with its model, a batch, and what else is `asked`, or make it."""
        identity, model = loss.identity, loss.model
        name = identity if isinstance(identity, str) else id(identity)
        key = name, _shapes(keras, data), execution(model), plain_settings(model), asked
        kept = self._kept.setdefault(model, OrderedDict())
        # An identity may become another object's.
        if key not in kept or kept[key][0]() is not identity:
            kept[key] = weakly(identity), make()
        kept.move_to_end(key)
        while len(kept) > _MOST:
            kept.popitem(last=False)
        return kept[key][1]


def weakly(thing: object) -> Held:
    """Refer to something that may hold the model: a trace must not keep the model alive through it."""
    try:
        return weakref.ref(thing)
    except TypeError:  # None, a string, or an object that cannot be referred to weakly
        return lambda: thing


def _shapes(keras: Dialect, data: object) -> str:
    """Write down shapes and dtypes, to distinguish batches for which another trace is needed."""
    return str(
        keras.tree.map_structure(
            lambda array: None if array is None else f"{tuple(array.shape)} {array.dtype}", data
        )
    )
