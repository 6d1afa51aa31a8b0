"""Whether captures of parts of a batch, one after the other, add up to the capture of the whole.

`why_whole` judges the model before anything runs, `Parts` the loss after a pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras

from throughtime.adapters.alike import Alike
from throughtime.adapters.keras import whole
from throughtime.adapters.keras.reductions import Labels
from throughtime.adapters.keras.seen import Result
from throughtime.adapters.records import MEAN, ONE_SAMPLE, SUM, ModelRecord

from .arrays import numpy
from .internals import every_layer
from .program import VALID_STEPS, Program
from .tensors import batch_size, joined, rows_of


def why_whole(model: Any, x: Any, training: bool) -> str:
    """Tell why parts would not add up; empty where nothing of the model and its inputs says so."""
    lengths = (int(array.shape[0]) for array in keras.tree.flatten(x))
    fixed = (tensor.shape[0] for tensor in keras.tree.flatten(getattr(model, "inputs", None) or []))
    return whole.why_whole(lengths, every_layer(model), fixed, training=training)


def _of_loss(model: Any, how: str, program: Program, *, own_function: bool) -> str:
    """Tell why the loss of the whole is no sum or mean of the losses of its parts; empty where it is.

    Parameters
    ----------
    model : keras.Model
    how : str
        The loss's reduction in words.
    program : Program
        After its pass.
    own_function : bool
        The loss is a plain function, which knows no masks.
    """
    if program.adds_losses:
        return whole.ADDED
    if how not in (MEAN, SUM, ONE_SAMPLE):
        return whole.REDUCTION.format(how=how)
    if how == SUM and any(variable.regularizer is not None for variable in model.trainable_variables):
        return whole.REGULARISED
    is_clear = own_function or (program.reductions.declared is not None and len(program.masked) == 1)
    return "" if is_clear or how == SUM or not any(program.masked) else whole.MASKED


def _weight(program: Program, result: Result, samples: int) -> float:
    """Tell what a batch counts for in a mean over several: Keras' losses average over valid steps."""
    if VALID_STEPS not in result.tensors or program.reductions.declared is None:
        return float(samples)
    return float(numpy(result.tensors[VALID_STEPS]))


class Parts:
    """The parts of one batch, as they are captured one after the other.

    Parameters
    ----------
    model : keras.Model
    loss : as `Probe` takes it
    evaluate : callable (Labels, predictions) -> float
        The loss without what the model adds to it.
    """

    def __init__(self, model: Any, loss: Any, evaluate: Callable[[Labels, Any], float]) -> None:
        self._model, self._evaluate = model, evaluate
        self._own_function = callable(loss) and not isinstance(loss, keras.losses.Loss)
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
        why = _of_loss(self._model, how, program, own_function=self._own_function)
        if not why and not program.reductions.is_certain:
            why = self._why_unlike(how, (*data, program.predictions(result)), samples)
        return replace(record, weight=_weight(program, result, samples), why_whole=why)

    def _why_unlike(self, how: str, data: Any, samples: int) -> str:
        if self._alike is None:
            self._alike = Alike(self._loss_of, rows_of, joined, how)
        return self._alike.why_not(data, samples)

    def _loss_of(self, data: Any) -> float:
        *labels, predictions = data
        return self._evaluate(Labels(*labels), predictions)
