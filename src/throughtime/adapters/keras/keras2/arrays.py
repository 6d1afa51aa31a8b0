"""From TensorFlow's tensors to NumPy, and samples of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from throughtime._errors import BatchError
from throughtime.adapters.keras.batches import PAD
from throughtime.adapters.records import Array


def numpy(array: Any, *, copy: bool = False) -> Array:
    """Bring an array to what NumPy has: bfloat16 as float32. What a pass returned is nobody else's."""
    values: Array = np.asarray(array)
    return values.astype(np.float32) if values.dtype.name == "bfloat16" else values


def shape_of(tensor: Any) -> tuple[Any, ...]:
    """Return a tensor's or variable's shape as ints, None where it is open.

    Without TensorFlow 2's behaviour a shape is made of numbers of TensorFlow's own.
    """
    return tuple(tf.TensorShape(tensor.shape).as_list())


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
        raise BatchError("A tf.SparseTensor cannot be captured: tf.sparse.to_dense(x) gives the same batch.")
    if isinstance(value, tf.Tensor) and not hasattr(value, "numpy"):
        raise BatchError(
            "The batch holds a tensor of a graph, which has no values: give arrays, session.run(tensor)."
        )
    return np.asarray(value)


def taken(array: Array, rows: Sequence[int]) -> Array:
    """Take samples of an array."""
    return array[list(rows)]


def joined(one: Array, other: Array) -> Array:
    """Put the samples of two arrays together."""
    return np.concatenate([one, other])
