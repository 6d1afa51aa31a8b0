"""The functions of `keras.ops` that the engine uses, on TensorFlow's tensors."""

import tensorflow as tf

from throughtime.adapters.keras.contracts import Shape, Tensor
from throughtime.adapters.keras.library import shape_of

cast = tf.cast
concatenate = tf.concat
convert_to_tensor = tf.convert_to_tensor
eye = tf.eye
matmul = tf.matmul
max = tf.reduce_max  # noqa: A001 - as keras.ops names it
mean = tf.reduce_mean
ones_like = tf.ones_like
reshape = tf.reshape
split = tf.split
sqrt = tf.sqrt
square = tf.square
stack = tf.stack
stop_gradient = tf.stop_gradient
sum = tf.reduce_sum  # noqa: A001
tile = tf.tile
unstack = tf.unstack
where = tf.where
zeros = tf.zeros
zeros_like = tf.zeros_like


def flip(tensor: Tensor, axis: int) -> Tensor:
    """Turn an axis round."""
    return tf.reverse(tensor, [axis])


def shape(tensor: Tensor) -> Shape:
    """Return the lengths of a tensor: numbers where they are known, else scalars."""
    lengths = tf.shape(tensor)
    return tuple(lengths[axis] if known is None else known for axis, known in enumerate(shape_of(tensor)))


def swapaxes(tensor: Tensor, one: int, other: int) -> Tensor:
    """Exchange two axes."""
    order = list(range(len(tensor.shape)))
    order[one], order[other] = order[other], order[one]
    return tf.transpose(tensor, order)
