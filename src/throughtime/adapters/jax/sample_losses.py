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
    leaves = jax.tree.leaves((current.output, y, sample_weight))
    has_axis = any(samples.of_data(leaf) is not None for leaf in leaves)
    if samples.count > 1 and not has_axis:
        raise LossError("The model's output has no axis of samples, so that no sample has a loss alone.")

    def each(parameters: Any, others: Any, x: Any, y: Any, sample_weight: Any) -> Any:
        data = (model.call(parameters, others, x), y, sample_weight)
        if not has_axis:
            return total(loss, *data)[None]
        return jax.vmap(lambda row: total(loss, *samples.rows(data, row)))(jnp.arange(samples.count))

    return each
