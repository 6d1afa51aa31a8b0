"""Whether captures of parts of a batch, one after the other, add up to the capture of the whole.

`why_whole` judges the model before anything runs, `of_loss` the loss after a pass.
"""

from __future__ import annotations

from typing import Any

import keras

from throughtime._record import MEAN, ONE_SAMPLE, SUM

from .arrays import numpy
from .internals import every_layer
from .program import VALID_STEPS, Program, Result

_TRAINING = "with training=True dropout and batch statistics are those of the whole batch"
_STATEFUL = "the layer {name!r} is stateful and keeps a state for each sample of the batch"
_FIXED = "the model's input has a fixed batch size of {size}"
_REDUCTION = "the loss is no mean or sum over samples ({how})"
_ADDED = "layers add losses of their own, with add_loss or an activity regulariser, from the whole batch"
_REGULARISED = "the loss is a sum over samples, and its regularisers are added once for each batch"
_MASKED = "masks reach the loss, and on which steps it averages is not known"


def why_whole(model: Any, training: bool) -> str:
    """Tell why parts would not add up; empty where nothing of the model says so."""
    if training:
        return _TRAINING
    stateful = [layer.name for layer in every_layer(model) if getattr(layer, "stateful", False)]
    if stateful:
        return _STATEFUL.format(name=stateful[0])
    sizes = [tensor.shape[0] for tensor in keras.tree.flatten(getattr(model, "inputs", None) or [])]
    fixed = [size for size in sizes if size is not None]
    return _FIXED.format(size=fixed[0]) if fixed else ""


def of_loss(model: Any, how: str, program: Program, *, own_function: bool) -> str:
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
        return _ADDED
    if how not in (MEAN, SUM, ONE_SAMPLE):
        return _REDUCTION.format(how=how)
    if how == SUM and any(variable.regularizer is not None for variable in model.trainable_variables):
        return _REGULARISED
    is_clear = own_function or (program.reductions is not None and len(program.masked) == 1)
    return "" if is_clear or how == SUM or not any(program.masked) else _MASKED


def weight(program: Program, result: Result, samples: int) -> float:
    """Tell what a batch counts for in a mean over several: Keras' losses average over valid steps."""
    if VALID_STEPS not in result.tensors or program.reductions is None:
        return float(samples)
    return float(numpy(result.tensors[VALID_STEPS]))
