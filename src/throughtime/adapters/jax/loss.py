"""The number that is differentiated, and what each sample loses. A loss is any callable `(output, y)`."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from throughtime._errors import LossError
from throughtime.adapters import plain_loss
from throughtime.adapters.plain_loss import evaluated, weighted
from throughtime.adapters.records import Array

from . import models
from .models import shapes_of, traced

_MOST = 8  # compiled programs that are kept
_known: OrderedDict[Any, Any] = OrderedDict()


check_loss = partial(plain_loss.check_loss, model="JAX model", example="optax.squared_error")


def total(loss: Any, output: Any, y: Any, sample_weight: Any) -> Any:
    """Evaluate the scalar loss of a batch, or raise LossError; values per sample are averaged."""
    value = evaluated(loss, output, y, _shapes)
    if not hasattr(value, "dtype") or not jnp.issubdtype(value.dtype, jnp.floating):
        found = f"an array of {value.dtype}" if hasattr(value, "dtype") else type(value).__name__
        raise LossError(f"The loss must return a real floating-point array; it returned {found}.")
    if sample_weight is not None:
        value = weighted(value, jnp.asarray(sample_weight, value.dtype))
    return value.mean()


def _shapes(structure: Any) -> str:
    return ", ".join(str(tuple(np.shape(leaf))) for leaf in jax.tree.leaves(structure)) or "()"


def losses(model: Any, x: Any, y: Any, sample_weight: Any, *, loss: Any, training: bool) -> Array:
    """Evaluate what each sample loses alone, (sample) in float64; LossError if it fails on single samples."""
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
        raise LossError("The model's output has no sample axis, so a single sample has no loss.")

    def each(parameters: Any, others: Any, x: Any, y: Any, sample_weight: Any) -> Any:
        data = (model.call(parameters, others, x), y, sample_weight)
        if not has_axis:
            return total(loss, *data)[None]
        return jax.vmap(lambda row: total(loss, *samples.rows(data, row)))(jnp.arange(samples.count))

    return each
