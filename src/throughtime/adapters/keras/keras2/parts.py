"""Whether captures of parts of a batch, one after the other, add up to the capture of the whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import tensorflow as tf

from throughtime.adapters.alike import Alike
from throughtime.adapters.keras import whole
from throughtime.adapters.keras.reductions import Labels
from throughtime.adapters.keras.seen import Result
from throughtime.adapters.records import MEAN, ONE_SAMPLE, SUM, ModelRecord

from .arrays import batch_size, joined, rows_of, shape_of
from .internals import every_layer
from .program import Program


def why_whole(model: Any, x: Any, training: bool) -> str:
    """Tell why parts would not add up; empty where nothing of the model and its inputs says so."""
    lengths = (int(array.shape[0]) for array in tf.nest.flatten(x))
    fixed = (shape_of(tensor)[0] for tensor in tf.nest.flatten(getattr(model, "inputs", None) or []))
    return whole.why_whole(lengths, every_layer(model), fixed, training=training)


def _of_loss(model: Any, how: str, program: Program) -> str:
    """Tell why the loss of the whole is no sum or mean of the losses of its parts; empty where it is."""
    if program.adds_losses:
        return whole.ADDED
    if how not in (MEAN, SUM, ONE_SAMPLE):
        return whole.REDUCTION.format(how=how)
    if how == SUM and any(layer._callable_losses for layer in every_layer(model)):
        return whole.REGULARISED
    return whole.MASKED if how != SUM and program.masked else ""


class Parts:
    """The parts of one batch, as they are captured one after the other.

    Parameters
    ----------
    model : the model
    evaluate : callable (Labels, predictions) -> float
        The loss without what the model adds to it.
    """

    def __init__(self, model: Any, evaluate: Callable[[Labels, Any], float]) -> None:
        self._model, self._evaluate = model, evaluate
        self._alike: Alike | None = None

    def record(
        self, record: ModelRecord, how: str, program: Program, result: Result, data: Any
    ) -> ModelRecord:
        """Add what the record of the next part means beside those of the others.

        Parameters
        ----------
        record : ModelRecord
        how : str
            The loss's reduction in words.
        program, result
            The pass that gave it.
        data : tuple
            x, y and sample weights.
        """
        samples = batch_size(data[0])
        why = _of_loss(self._model, how, program)
        if not why and not program.reductions.is_certain:
            if self._alike is None:
                self._alike = Alike(self._loss_of, rows_of, joined, how)
            why = self._alike.why_not((*data, program.predictions(result)), samples)
        return replace(record, weight=float(samples), why_whole=why)

    def _loss_of(self, data: Any) -> float:
        *labels, predictions = data
        return self._evaluate(Labels(*labels), predictions)
