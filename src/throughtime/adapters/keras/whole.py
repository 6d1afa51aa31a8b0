"""Why a batch is captured as a whole: what of a model, its inputs and its loss does not add up over parts.

Shared by the adapters of every Keras.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_SIZES = "the inputs' first axes, {sizes}, are not all samples"
_TRAINING = "with training=True dropout and batch statistics are those of the whole batch"
_STATEFUL = "the layer {name!r} is stateful and keeps a state for each sample of the batch"
_FIXED = "the model's input has a fixed batch size of {size}"
REDUCTION = "the loss is no mean or sum over samples ({how})"
ADDED = "layers add losses of their own, with add_loss or an activity regulariser, from the whole batch"
REGULARISED = "the loss is a sum over samples, and its regularisers are added once for each batch"
MASKED = "masks reach the loss, and on which steps it averages is not known"


def why_whole(
    lengths: Iterable[int], layers: Iterable[Any], fixed: Iterable[int | None], *, training: bool
) -> str:
    """Tell why parts would not add up; empty where nothing of the model and its inputs says so.

    Parameters
    ----------
    lengths : iterable of int
        Of the inputs' first axes.
    layers : iterable of layers
        All of the model.
    fixed : iterable of int or None
        Batch sizes that the model's inputs are made for.
    training : bool
    """
    known = sorted(set(lengths))
    if len(known) > 1:
        return _SIZES.format(sizes=", ".join(map(str, known)))
    if training:
        return _TRAINING
    stateful = [layer.name for layer in layers if getattr(layer, "stateful", False)]
    if stateful:
        return _STATEFUL.format(name=stateful[0])
    sizes = [size for size in fixed if size is not None]
    return _FIXED.format(size=sizes[0]) if sizes else ""
