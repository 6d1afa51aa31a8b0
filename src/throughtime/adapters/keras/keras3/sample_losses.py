"""What each sample of a batch loses, in a pass forward without gradients.

A loss of Keras' own is evaluated on all samples at once, without its reduction, and held against two samples
evaluated alone; any other loss is evaluated on one sample after another.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from throughtime._errors import LossError, ThroughTimeError
from throughtime.adapters.keras.batches import batch_size, check_sizes, ragged_explained, rows_of, shapes
from throughtime.adapters.keras.dialect import Traced
from throughtime.adapters.keras.layers import plain_settings
from throughtime.adapters.keras.loss import Loss
from throughtime.adapters.keras.recorder import CARRIED
from throughtime.adapters.keras.reductions import Labels
from throughtime.adapters.keras.traces import Traces
from throughtime.adapters.records import Array

from . import dialect
from .backend import scope

_MASK, _LOGITS = CARRIED
_AGREES = 1e-3  # relative, between two ways to evaluate one loss: half precision rounds both


class Forward:
    """A model's pass without a loss."""

    has_loss = any_batch = False

    def __init__(self, model: Any, *, training: bool) -> None:
        self._model, self._training = weakref.ref(model), training
        self.differentiated: dict[int, Any] = {}
        self.structure: Any = None

    @property
    def model(self) -> Any:
        """The model."""
        return self._model()

    def __call__(self, inputs: Any, mark: Any) -> tuple[None, dict[str, Any]]:
        """Run the pass; return no loss, and predictions with the masks and logits that travel with them."""
        del mark
        predictions = dialect.called(self.model, inputs, self._training)
        self.structure = keras.tree.map_structure(lambda _: 0, predictions)
        found: dict[str, Any] = {}
        for index, prediction in enumerate(keras.tree.flatten(predictions)):
            found[f"prediction.{index}"] = prediction
            for name in CARRIED:
                if (carried := dialect.beside(prediction, name)) is not None:
                    found[f"{name}.{index}"] = carried
        return None, found


@dataclass(frozen=True)
class _Passed:
    """What a pass predicted, flat, and how the model arranges it."""

    tensors: dict[str, Any]
    structure: Any

    @property
    def count(self) -> int:
        """How many predictions there are."""
        return len(keras.tree.flatten(self.structure))

    def predictions(self, rows: Sequence[int] | None = None) -> Any:
        """Give the predictions of some samples, None for all, with their masks and logits."""
        flat = []
        for index in range(self.count):
            taken = self._of("prediction", index, rows)
            mask, logits = self._of(_MASK, index, rows), self._of(_LOGITS, index, rows)
            # A tensor of its own: what travels with it must not stay on one that is kept.
            prediction = keras.ops.convert_to_tensor(taken) + 0 if mask is not None else taken
            for name, carried in ((_MASK, mask), (_LOGITS, logits)):
                if carried is not None:
                    dialect.set_beside(prediction, name, carried)
            flat.append(prediction)
        return keras.tree.pack_sequence_as(self.structure, flat)

    def _of(self, name: str, index: int, rows: Sequence[int] | None) -> Any:
        tensor = self.tensors.get(f"{name}.{index}")
        return tensor if rows is None or tensor is None else dialect.taken(tensor, rows)


_traces: Traces[tuple[Forward, Traced]] = Traces()


def losses(model: Any, x: Any, y: Any, sample_weight: Any, *, loss: Any, training: bool) -> Array:
    """Evaluate what each sample loses alone, in float64.

    Returns
    -------
    ndarray (sample)
        NaN for a sample whose steps are all masked.

    Raises
    ------
    LossError
        There is no loss that compares predictions with labels, or it fails on single samples.
    """
    dialect.check_model(model)
    own = Loss(dialect, model, loss)
    own.check()
    dialect.synchronise(model)
    data = Labels(*dialect.batch(model, x, y, sample_weight))
    check_sizes(dialect, data.x, data.y, data.sample_weight)
    kept = dialect.untouched(model)
    with ragged_explained(dialect, x), kept, kept:
        passed = _run(model, data.x, training)
        with scope(model):
            return _evaluated(_Evaluation(own, training, data, passed))


def _run(model: Any, x: Any, training: bool) -> _Passed:
    def traced() -> tuple[Forward, Traced]:
        forward = Forward(model, training=training)
        return forward, dialect.traced(forward, x)

    key = shapes(dialect, x), training, dialect.execution(model), plain_settings(model)
    forward, run = _traces.get(model, key, traced)
    return _Passed(run(x).tensors, forward.structure)


@dataclass(frozen=True)
class _Evaluation:
    loss: Loss
    training: bool
    labels: Labels
    passed: _Passed

    def alone(self, sample: int) -> float:
        """Evaluate the loss on one sample."""
        given = (self.labels.x, self.labels.y, self.labels.sample_weight)
        parts = (rows_of(dialect, part, [sample]) for part in given)
        predictions = self.passed.predictions([sample])
        value = self.loss.of_data(Labels(*parts), predictions, self.training)
        return float(keras.ops.convert_to_numpy(keras.ops.cast(value, "float32")))


def _evaluated(evaluation: _Evaluation) -> Array:
    if not evaluation.loss.has_data_loss():
        raise LossError("Layers add the whole loss: no part of it compares one sample with its labels.")
    size = batch_size(dialect, evaluation.labels.x)
    try:
        ends = {sample: evaluation.alone(sample) for sample in (0, size - 1)}
        together = _together(evaluation, size)
        if together is not None and _agree(together, ends):
            return together
        rest = {sample: evaluation.alone(sample) for sample in range(1, size - 1)}
    except ThroughTimeError:
        raise
    except Exception as error:
        raise LossError(
            f"The loss cannot be evaluated on one sample alone: {type(error).__name__}: {error}"
        ) from error
    found = {**ends, **rest}
    values = np.array([found[sample] for sample in range(size)])
    values[_without_steps(evaluation.passed, size)] = np.nan
    return values


def _agree(together: Array, ends: dict[int, float]) -> bool:
    # A sample without valid steps loses 0 alone and is left out together.
    pairs = [(together[sample], alone) for sample, alone in ends.items() if not np.isnan(together[sample])]
    return all(abs(one - other) <= _AGREES * max(abs(other), 1e-6) for one, other in pairs)


def _together(evaluation: _Evaluation, size: int) -> Array | None:
    """Evaluate a single loss of Keras' own on all samples at once; None where that is not to be had."""
    passed, how = evaluation.passed, evaluation.loss.reductions()
    labels = keras.tree.flatten(evaluation.labels.y)
    if not how.is_certain or len(how.declared or ()) != 1 or passed.count != 1 or len(labels) != 1:
        return None
    (single,) = evaluation.loss.singles()
    prediction = keras.tree.flatten(passed.predictions())[0]
    values = _numbers(single.call(keras.ops.cast(labels[0], prediction.dtype), prediction))
    if values.shape[:1] != (size,):
        return None
    weight = evaluation.labels.sample_weight
    weights = _weights(values, passed.tensors.get(f"{_MASK}.0"))
    own = _weights(values, None if weight is None else keras.tree.flatten(weight)[0])
    if weights is None or own is None:
        return None
    return _reduced(values.reshape(size, -1), own.reshape(size, -1), weights.reshape(size, -1), how.declared)


def _reduced(values: Array, own: Array, mask: Array, how: Any) -> Array:
    """Reduce each sample's own elements as Keras would reduce those of a batch of one."""
    total = (values * own * mask).sum(axis=1)
    counted = {"sum": np.ones(len(values)), "mean_with_sample_weight": (own * mask).sum(axis=1)}
    divisor = counted.get(how[0], mask.sum(axis=1))
    steps = mask.sum(axis=1)
    return np.where(steps > 0, total / np.where(divisor != 0, divisor, 1.0), np.nan)


def _weights(values: Array, given: Any) -> Array | None:
    """Spread weights, or a mask, over the elements of a loss; None where they do not fit."""
    if given is None:
        return np.ones_like(values)
    weights = _numbers(given)
    if weights.ndim == values.ndim + 1 and weights.shape[-1] == 1:
        weights = weights[..., 0]
    if weights.shape != values.shape[: weights.ndim]:
        return None
    return np.broadcast_to(
        weights.reshape(*weights.shape, *(1,) * (values.ndim - weights.ndim)), values.shape
    )


def _without_steps(passed: _Passed, size: int) -> Array:
    """Which samples have masks and nothing valid."""
    masks = [tensor for key, tensor in passed.tensors.items() if key.startswith(_MASK)]
    if not masks or len(masks) < passed.count:
        return np.zeros(size, bool)
    empty: Array = np.all([~(_numbers(mask).reshape(size, -1) != 0).any(axis=1) for mask in masks], axis=0)
    return empty


def _numbers(tensor: Any) -> Array:
    if keras.backend.standardize_dtype(tensor.dtype) == "bfloat16":
        tensor = keras.ops.cast(tensor, "float32")
    return np.asarray(keras.ops.convert_to_numpy(tensor), np.float64)
