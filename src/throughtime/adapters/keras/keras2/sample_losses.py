"""What each sample of a batch loses: the model and its loss on one sample after another, no gradients."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import tensorflow as tf

from throughtime._errors import LossError, ThroughTimeError
from throughtime.adapters.keras.batches import batch_size, check_sizes, rows_of, shapes
from throughtime.adapters.keras.dialect import Traced
from throughtime.adapters.keras.layers import plain_settings
from throughtime.adapters.keras.loss import Loss
from throughtime.adapters.keras.recorder import CARRIED, Mark
from throughtime.adapters.keras.reductions import Labels
from throughtime.adapters.keras.traces import Traces
from throughtime.adapters.records import Array

from . import dialect

# With the loss that each is made for: its identity must not become another object's.
_traces: Traces[tuple[Traced, Any]] = Traces()


class Alone:
    """A pass on one sample with the part of the loss that compares it with its labels.

    Holds the model weakly: what is traced from it lives in a cache without keeping the model alive.
    """

    has_loss = any_batch = False

    def __init__(self, model: Any, passed: Any, *, training: bool) -> None:
        self._model, self._passed, self._training = weakref.ref(model), passed, training
        self.differentiated: dict[int, Any] = {}

    @property
    def model(self) -> Any:
        """The model."""
        return self._model()

    def __call__(self, inputs: Any, mark: Mark) -> tuple[None, dict[str, Any]]:
        """Run the pass; return its loss, and whether anything is valid in it."""
        del mark
        labels = Labels(*inputs)
        predictions = dialect.called(self.model, labels.x, self._training)
        loss = Loss(dialect, self.model, self._passed).of_data(labels, predictions, self._training)
        masks = [dialect.beside(each, CARRIED[0]) for each in tf.nest.flatten(predictions)]
        is_valid = tf.constant(True)
        if masks and all(mask is not None for mask in masks):
            is_valid = tf.reduce_any([tf.reduce_any(tf.cast(mask, tf.bool)) for mask in masks])
        return None, {"loss": loss, "valid": is_valid}


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
    whole = Loss(dialect, model, loss)
    whole.check()
    if not whole.has_data_loss():
        raise LossError("Layers add the whole loss: no part of it compares one sample with its labels.")
    data = dialect.batch(model, x, y, sample_weight)
    check_sizes(dialect, *data)
    singles = [
        tuple(rows_of(dialect, part, [row]) for part in data) for row in range(batch_size(dialect, data[0]))
    ]
    try:
        with dialect.untouched(model):
            run = _traced(model, whole, singles[0], training)
            results = [run(single).tensors for single in singles]
    except ThroughTimeError:
        raise
    except Exception as error:
        raise LossError(
            f"The loss cannot be evaluated on one sample alone: {type(error).__name__}: {error}"
        ) from error
    return np.array([float(each["loss"]) if each["valid"] else np.nan for each in results])


def _traced(model: Any, loss: Loss, single: Any, training: bool) -> Traced:
    def made() -> tuple[Traced, Any]:
        alone = Alone(model, loss.passed, training=training)
        return dialect.traced(alone, single), loss.identity

    key = shapes(dialect, single), id(loss.identity), training, plain_settings(model)
    return _traces.get(model, key, made)[0]
