"""TensorFlow's tensors and variables, and the arrays of a batch."""

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
        raise BatchError("A tf.SparseTensor cannot be captured. Pass tf.sparse.to_dense(x).")
    if isinstance(value, tf.Tensor) and not hasattr(value, "numpy"):
        raise BatchError(
            "The batch holds a graph tensor, which has no values. Pass arrays: session.run(tensor)."
        )
    return np.asarray(value)


def taken(array: Array, rows: Sequence[int]) -> Array:
    """Take samples of an array."""
    return array[list(rows)]


def joined(one: Array, other: Array) -> Array:
    """Put the samples of two arrays together."""
    return np.concatenate([one, other])


def is_tensor(value: Any) -> bool:
    """Whether a value is one tensor."""
    return bool(tf.is_tensor(value))


def dtype_of(tensor: Any) -> str:
    """Name a tensor's dtype."""
    return str(tf.as_dtype(raw_variable(tensor).dtype).name)


def path_of(variable: Any) -> str:
    """Name a variable with its scopes, parted by slashes."""
    return str(variable.name).partition(":")[0]


def raw_variable(variable: Any) -> Any:
    """Take the wrapper off that mixed precision puts around a variable, to read it as it is stored."""
    is_wrapped = type(variable).__name__ == "AutoCastVariable"
    return variable._variable if is_wrapped else variable


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
