"""What each sample of a batch loses, in a pass forward without gradients."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from throughtime._errors import LossError
from throughtime.adapters.records import Array

from . import models
from .loss import check_loss, total
from .trace import shapes_of, traced

_MOST = 8  # compiled programs that are kept
_known: OrderedDict[Any, Any] = OrderedDict()


def losses(model: Any, x: Any, y: Any, sample_weight: Any, *, loss: Any, training: bool) -> Array:
    """Evaluate what each sample loses alone, in float64.

    Returns
    -------
    ndarray (sample)

    Raises
    ------
    LossError
        The loss fails on single samples.
    """
    check_loss(loss)
    taken = models.taken_apart(model, training=training)
    x, y, sample_weight = (jax.tree.map(jnp.asarray, data) for data in (x, y, sample_weight))
    arguments = taken.parameters, taken.others, x, y, sample_weight
    key = (taken.structure, loss, training, *map(shapes_of, arguments))
    compiled = _known.get(key) if taken.structure is not None else None
    if compiled is None:
        compiled = _known[key] = jax.jit(_of_each(taken, loss, x, y, sample_weight))
        while len(_known) > _MOST:
            _known.popitem(last=False)
    return np.asarray(compiled(*arguments), np.float64)


def _of_each(model: models.Model, loss: Any, x: Any, y: Any, sample_weight: Any) -> Any:
    """Make the function of all arrays that evaluates each sample's loss."""
    current = traced(model, x)
    samples = current.samples
    axes = [jax.tree.map(samples.of_data, part) for part in (current.output, y, sample_weight)]
    if not any(axis is not None for axis in jax.tree.leaves(axes)):
        if samples.count > 1:
            raise LossError("The model's output has no axis of samples, so that no sample has a loss alone.")
        axes = []

    def each(parameters: Any, others: Any, x: Any, y: Any, sample_weight: Any) -> Any:
        data = (model.call(parameters, others, x), y, sample_weight)
        if not axes:
            return total(loss, *data)[None]
        leaves, structure = jax.tree.flatten(data)
        places = [samples.of_data(leaf) for leaf in leaves]
        pairs = list(zip(leaves, places, strict=True))
        moved = [
            leaf if axis is None else jnp.expand_dims(jnp.moveaxis(leaf, axis, 0), axis + 1)
            for leaf, axis in pairs
        ]

        def alone(*leaves: Any) -> Any:
            return total(loss, *structure.unflatten(leaves))

        return jax.vmap(alone, in_axes=tuple(None if axis is None else 0 for axis in places))(*moved)

    return each
