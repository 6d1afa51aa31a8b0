"""What the engine asks of tf_keras and Keras 2: see `adapters.keras.dialect`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from throughtime.adapters.keras.library import (
    belongs_to_a_graph,
    internal,
    is_a,
    overrides,
    package_of_object,
    version,
)
from throughtime.adapters.keras.loop import scan_by_rnn
from throughtime.adapters.records import Array, Attribute

from . import ops
from .arrays import numpy, shape_of
from .dropout import NO_DROPOUT, recurrent_masks, with_dropout_masks
from .internals import compute_dtype, every_layer, path_of, raw_variable
from .variables import numbers_of
from .ways import activation_name, halves, is_closed, why_not

__all__ = [
    "NO_DROPOUT",
    "activation_name",
    "backend_name",
    "called",
    "compute_dtype",
    "dtype_of",
    "evaluated",
    "every_layer",
    "halves",
    "is_closed",
    "is_float",
    "loss_scale_of",
    "numbers_of",
    "numpy",
    "of_framework",
    "of_training",
    "ops",
    "path_of",
    "recurrent_masks",
    "regularised",
    "repeats_first_state",
    "scan",
    "shape_of",
    "sizes_of_states",
    "tensor",
    "tree",
    "why_not",
    "with_dropout_masks",
    "zeroes_masked_output",
]

tree = tf.nest


def is_float(tensor: Any) -> bool:
    """Whether a gradient with respect to this tensor or variable can exist."""
    return bool(tf.as_dtype(tensor.dtype).is_floating)


def dtype_of(tensor: Any) -> str:
    """Name a tensor's dtype."""
    return str(tf.as_dtype(raw_variable(tensor).dtype).name)


def zeroes_masked_output(layer: Any) -> bool:
    """Whether a masked step of a recurrent layer emits 0."""
    return bool(layer.zero_output_for_mask)


def repeats_first_state(layer: Any) -> bool:
    """Whether a masked step emits the first state: it emits the output before it."""
    return False


def tensor(array: Array) -> Any:
    """Bring an array to what a pass is given."""
    return array


def evaluated(function: Any, array: Array) -> Array:
    """Apply a regulariser to an array."""
    if tf.executing_eagerly():
        return np.asarray(function(tf.constant(array)))
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        return np.asarray(session.run(function(tf.constant(array))))


def of_framework(model: Any) -> dict[str, Attribute]:
    """Name the Keras 2 of a model, its version, and how it runs."""
    return {
        "framework": package_of_object(model),
        "framework_version": version(model),
        "backend": "tensorflow",
        "backend_version": str(tf.__version__),
        "mode": "graph" if belongs_to_a_graph(model) else "eager",
    }


def of_training(model: Any, *, with_loss: bool) -> dict[str, Attribute]:
    """Name what the pass does otherwise than a training step."""
    attributes: dict[str, Attribute] = {}
    if with_loss and overrides(model, "train_step"):
        attributes["train_step"] = "the model's own train_step was not run: the loss is that of compute_loss"
    if getattr(model, "_jit_compile", False):
        attributes["jit_compile"] = "the pass ran without XLA, whose results differ in the last digits"
    return attributes


def regularised(model: Any) -> list[str]:
    """Name the layers that are regularised."""
    return [layer.name for layer in every_layer(model) if layer._callable_losses]


def loss_scale_of(model: Any) -> float:
    """Return the factor by which the model's optimizer scales its loss, 1 without."""
    optimizer: Any = getattr(model, "optimizer", None)
    if is_a(optimizer, "LossScaleOptimizer", "LossScaleOptimizerV3"):
        return float(optimizer.initial_scale)
    return 1.0


def scan(layer: Any, step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, sequences: Any) -> Any:
    """Run `step` (carry, values of one step) -> (carry, outputs) along the first axis, in Keras' own loop."""
    rnn = internal(layer, "backend").rnn
    options = {"time_major": True, "return_all_outputs": True}
    known = inspect.signature(rnn).parameters  # older ones return all outputs anyhow
    own = partial(rnn, **{name: value for name, value in options.items() if name in known})
    return scan_by_rnn(tf.nest, own, step, carry, sequences)


def backend_name() -> str:
    """Name the framework that computes."""
    return "tensorflow"


def sizes_of_states(cell: Any) -> list[Any]:
    """Return the size of each state, a number or a shape."""
    size = cell.state_size
    sizes: list[Any] = tf.nest.flatten(size) if isinstance(size, (list, tuple)) else [size]
    return sizes


def called(cell: Any, x: Any, states: Sequence[Any], training: bool) -> tuple[Any, list[Any]]:
    """Call a cell as Keras' loop does."""
    given: Any = list(states)
    if isinstance(cell.state_size, (list, tuple)):
        given = tf.nest.pack_sequence_as(_sizes(cell), given)
    takes_training = "training" in inspect.signature(cell.call).parameters
    keywords = {"training": training} if takes_training else {}
    output, after = (cell if callable(cell) else cell.call)(x, given, **keywords)
    return output, tf.nest.flatten(after)


def _sizes(cell: Any) -> Any:
    """Return the sizes of a cell's states as a structure without shapes in it."""
    size = cell.state_size
    if isinstance(size, tf.TensorShape):
        return 0
    if isinstance(size, (list, tuple)):
        return [_sizes_of(each) for each in size]
    return 0


def _sizes_of(size: Any) -> Any:
    return 0 if isinstance(size, (int, tf.TensorShape)) else tf.nest.map_structure(lambda _: 0, size)
