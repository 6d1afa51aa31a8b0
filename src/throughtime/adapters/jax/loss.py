"""The one number that is differentiated. A loss is any callable `(output, y)`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from throughtime._errors import LossError, ThroughTimeError


def check_loss(loss: Any) -> None:
    """Refuse what is no loss.

    Raises
    ------
    LossError
    """
    if loss is None:
        raise LossError(
            "A JAX model has no loss of its own: pass loss=, a function (output, y) that returns a scalar or "
            "one value per sample, such as optax.squared_error."
        )
    if not callable(loss):
        raise LossError(f"loss= takes a function (output, y), not {type(loss).__name__}.")


def total(loss: Any, output: Any, y: Any, sample_weight: Any) -> Any:
    """Evaluate the scalar loss of a batch; values per sample are averaged.

    Raises
    ------
    LossError
    """
    try:
        value = loss(output, y)
    except ThroughTimeError:
        raise
    except Exception as error:
        raise LossError(
            f"The loss could not be evaluated: {type(error).__name__}: {error}\n"
            f"It is called as loss(output, y). The output has shape {_shapes(output)}, y {_shapes(y)}."
        ) from error
    if not hasattr(value, "dtype") or not jnp.issubdtype(value.dtype, jnp.floating):
        found = f"an array of {value.dtype}" if hasattr(value, "dtype") else type(value).__name__
        raise LossError(f"The loss has to return a real floating-point array, it returned {found}.")
    if sample_weight is not None:
        value = _weighted(value, jnp.asarray(sample_weight))
    return value.mean()


def _weighted(value: Any, weight: Any) -> Any:
    if value.ndim == 0 or value.shape[: weight.ndim] != weight.shape:
        raise LossError(
            f"sample_weight has shape {weight.shape}, the values of the loss {value.shape}: their first axes "
            "must agree. Let the loss return a value for each sample, or for each sample and step."
        )
    return value * weight.astype(value.dtype).reshape(*weight.shape, *(1,) * (value.ndim - weight.ndim))


def _shapes(structure: Any) -> str:
    return ", ".join(str(tuple(np.shape(leaf))) for leaf in jax.tree.leaves(structure)) or "()"
