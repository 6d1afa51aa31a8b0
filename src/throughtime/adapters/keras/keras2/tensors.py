"""TensorFlow's tensors and variables, and the arrays of a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from throughtime._errors import BatchError
from throughtime.adapters.keras.batches import PAD


def batch(model: Any, *structures: Any) -> tuple[Any, ...]:
    """Bring x, y and sample weights to NumPy.

    Raises
    ------
    BatchError
        A part is no dense array.
    """
    return tuple(
        None if structure is None else tf.nest.map_structure(_array, structure) for structure in structures
    )


def _array(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, tf.RaggedTensor):
        raise BatchError(f"A tf.RaggedTensor cannot be captured. {PAD}")
    if isinstance(value, tf.SparseTensor):
        raise BatchError("A tf.SparseTensor cannot be captured. Pass tf.sparse.to_dense(x).")
    if isinstance(value, tf.Tensor) and not hasattr(value, "numpy"):
        raise BatchError(
            "The batch holds a graph tensor, which has no values. Pass arrays: session.run(tensor)."
        )
    return np.asarray(value)


def raw_variable(variable: Any) -> Any:
    """Take the wrapper off that mixed precision puts around a variable, to read it as it is stored."""
    return variable._variable if is_cast(variable) else variable


def is_cast(variable: Any) -> bool:
    """Whether a layer of mixed precision reads a variable in the precision it computes in."""
    return type(variable).__name__ == "AutoCastVariable"


def beside(tensor: Any, name: str) -> Any:
    """Return what Keras keeps on a tensor, its mask or logits; None for nothing."""
    return getattr(tensor, name, None)


def set_beside(tensor: Any, name: str, value: Any) -> None:
    """Keep something on a tensor, None for nothing."""
    if value is not None:
        setattr(tensor, name, value)
    elif hasattr(tensor, name):
        delattr(tensor, name)
