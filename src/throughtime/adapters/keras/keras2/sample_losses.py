"""What each sample of a batch loses: the model and its loss on one sample after another, no gradients."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from typing import Any

import numpy as np
import tensorflow as tf

from throughtime._errors import LossError, ThroughTimeError
from throughtime.adapters.keras.library import belongs_to_a_graph
from throughtime.adapters.keras.reductions import Labels
from throughtime.adapters.records import Array

from . import eager, graph
from .arrays import arrays, batch_size, check_sizes, rows_of, shapes
from .internals import autograph_enabled
from .loss import Loss
from .models import check_model, plain_settings
from .program import Traced, called
from .restore import untouched
from .tap import Mark

_KEPT_TRACES = 8
# With the loss that each is made for: its identity must not become another object's.
_traces: weakref.WeakKeyDictionary[Any, OrderedDict[Any, tuple[Traced, Any]]] = weakref.WeakKeyDictionary()


class Alone:
    """A pass on one sample with the part of the loss that compares it with its labels.

    Holds the model weakly: what is traced from it lives in a cache without keeping the model alive.
    """

    def __init__(self, model: Any, passed: Any, *, training: bool) -> None:
        self._model = weakref.ref(model)
        self._passed = passed
        self._training = training
        self.differentiated: dict[int, Any] = {}

    @property
    def model(self) -> Any:
        """The model."""
        return self._model()

    def __call__(self, inputs: Any, mark: Mark) -> tuple[None, dict[str, Any]]:
        """Run the pass; return its loss, and whether anything is valid in it."""
        del mark
        labels = Labels(*inputs)
        with autograph_enabled():
            predictions = called(self.model, labels.x, self._training)
            loss = Loss(self.model, self._passed).of_data(labels, predictions)
        masks = [getattr(each, "_keras_mask", None) for each in tf.nest.flatten(predictions)]
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
    check_model(model)
    whole = Loss(model, loss)
    whole.check()
    if not whole.has_data_loss():
        raise LossError("Layers add the whole loss: no part of it compares one sample with its labels.")
    data = tuple(map(arrays, (x, y, sample_weight)))
    check_sizes(*data)
    singles = [tuple(rows_of(part, [row]) for part in data) for row in range(batch_size(data[0]))]
    try:
        with untouched(model):
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
    kept = _traces.setdefault(model, OrderedDict())
    key = shapes(single), id(loss.identity), training, plain_settings(model)
    if key not in kept:
        alone = Alone(model, loss.passed, training=training)
        if belongs_to_a_graph(model):
            run = graph.trace(alone, single)
        else:
            step_by_step = bool(getattr(model, "run_eagerly", False))
            run = eager.trace(alone, single, step_by_step=step_by_step, any_batch=False)
        kept[key] = run, loss.identity
    kept.move_to_end(key)
    while len(kept) > _KEPT_TRACES:
        kept.popitem(last=False)
    return kept[key][0]
