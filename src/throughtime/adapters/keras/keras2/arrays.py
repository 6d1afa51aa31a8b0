"""From TensorFlow's tensors to NumPy, and parts of NumPy structures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from throughtime._errors import BatchError, LossError
from throughtime.adapters.records import Array

_PAD = (
    "Pad it: x.to_tensor() gives zeros behind the shorter sequences; a Masking layer, or mask= where the "
    "recurrent layer is called, leaves them out."
)


def numpy(array: Any, *, copy: bool = False) -> Array:
    """Bring an array to what NumPy has: bfloat16 as float32. What a pass returned is nobody else's."""
    values: Array = np.asarray(array)
    return values.astype(np.float32) if values.dtype.name == "bfloat16" else values


def shape_of(tensor: Any) -> tuple[Any, ...]:
    """Return a tensor's or variable's shape as ints, None where it is open.

    Without TensorFlow 2's behaviour a shape is made of numbers of TensorFlow's own.
    """
    return tuple(tf.TensorShape(tensor.shape).as_list())


def is_float(dtype: Any) -> bool:
    """Whether a dtype has gradients."""
    return bool(tf.as_dtype(dtype).is_floating)


def arrays(structure: Any) -> Any:
    """Bring a batch to NumPy.

    Raises
    ------
    BatchError
        A part is no dense array.
    """
    return None if structure is None else tf.nest.map_structure(_array, structure)


def _array(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, tf.RaggedTensor):
        raise BatchError(f"A tf.RaggedTensor cannot be captured. {_PAD}")
    if isinstance(value, tf.SparseTensor):
        raise BatchError("A tf.SparseTensor cannot be captured: tf.sparse.to_dense(x) gives the same batch.")
    if isinstance(value, tf.Tensor) and not hasattr(value, "numpy"):
        raise BatchError(
            "The batch holds a tensor of a graph, which has no values: give arrays, session.run(tensor)."
        )
    return np.asarray(value)


def batch_size(structure: Any) -> int:
    """Return the number of samples in a structure of arrays."""
    return int(tf.nest.flatten(structure)[0].shape[0])


def check_sizes(x: Any, y: Any, sample_weight: Any) -> None:
    """Refuse labels or weights for another number of samples.

    Raises
    ------
    LossError
    """
    size = batch_size(x)
    for name, structure in (("labels", y), ("sample_weight", sample_weight)):
        for array in tf.nest.flatten(structure) if structure is not None else ():
            shape = () if array is None else array.shape
            if array is not None and (not shape or shape[0] != size):
                raise LossError(
                    f"x has {size} samples and {name} have shape {shape}: the first axes must agree."
                )


def rows_of(structure: Any, rows: Sequence[int]) -> Any:
    """Take samples of every array; None stays None."""
    return _mapped(lambda array: array[list(rows)], structure)


def joined(one: Any, other: Any) -> Any:
    """Put the samples of two structures together."""
    return tf.nest.map_structure(lambda a, b: None if a is None else np.concatenate([a, b]), one, other)


def with_copies(structure: Any, size: int) -> Any:
    """Replace every sample by the first; what has no sample axis stays."""

    def copied(array: Array) -> Array:
        return array[[0] * size] if array.ndim and len(array) == size else array

    return _mapped(copied, structure)


def _mapped(function: Any, structure: Any) -> Any:
    if structure is None:
        return None
    return tf.nest.map_structure(lambda array: None if array is None else function(array), structure)


def first_sample(array: Array) -> tuple[str, Array] | None:
    """Name an array's dtype, and take its first sample in at least float32; None where it holds no floats."""
    if not is_float(array.dtype):
        return None
    return array.dtype.name, numpy(array[0]).astype(np.float64)


def shapes(structure: Any) -> str:
    """Write down shapes and dtypes, to tell batches apart for which another trace is needed."""
    return str(tf.nest.map_structure(lambda a: a if a is None else (a.shape, a.dtype.name), structure))
