"""What the engine asks of Keras 3: see `adapters.keras.dialect`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops, tree

from throughtime.adapters.keras.library import overrides
from throughtime.adapters.records import Array, Attribute

from .arrays import numpy
from .backend import module
from .dropout import NO_DROPOUT, recurrent_masks, with_dropout_masks
from .internals import every_layer, repeats_first_state, zeroes_masked_output
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


def is_float(tensor: Any) -> bool:
    """Whether a gradient with respect to this tensor or variable can exist."""
    return bool(keras.backend.is_float_dtype(dtype_of(tensor)))


def dtype_of(tensor: Any) -> str:
    """Name a tensor's dtype."""
    return str(keras.backend.standardize_dtype(tensor.dtype))


def shape_of(tensor: Any) -> tuple[Any, ...]:
    """Return a tensor's shape."""
    return tuple(tensor.shape)


def scan(layer: Any, step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, sequences: Any) -> Any:
    """Run a step over time in the backend's loop."""
    return module().scan(step, carry, sequences)


def compute_dtype(layer: Any) -> str:
    """Name the precision a layer computes in: JAX takes float64 for float32 unless told otherwise."""
    return dtype_of(ops.zeros((), layer.compute_dtype))


def tensor(array: Array) -> Any:
    """Bring an array to what a pass is given."""
    return ops.convert_to_tensor(array)


def path_of(variable: Any) -> str:
    """Name a variable with its scopes, parted by slashes."""
    return str(variable.path)


def evaluated(function: Any, array: Array) -> Array:
    """Apply a regulariser to an array."""
    return numpy(function(tensor(array)))


def of_framework(model: Any) -> dict[str, Attribute]:
    """Name Keras, its version and its backend."""
    return {
        "framework": "keras",
        "framework_version": keras.__version__,
        "backend": keras.backend.backend(),
    }


def of_training(model: Any, *, with_loss: bool) -> dict[str, Attribute]:
    """Name what the pass does otherwise than a training step."""
    if not with_loss or not overrides(model, "train_step"):
        return {}
    return {"train_step": "the model's own train_step was not run: the loss is that of compute_loss"}


def regularised(model: Any) -> list[str]:
    """Name the weights that are regularised."""
    return sorted({each.path for each in model.trainable_variables if each.regularizer is not None})


def loss_scale_of(model: Any) -> float:
    """Return the factor by which the model's optimizer scales its loss, 1 without."""
    optimizer = getattr(model, "optimizer", None)
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return float(optimizer.dynamic_scale) if optimizer.built else float(optimizer.initial_scale)
    return float(getattr(optimizer, "loss_scale_factor", None) or 1.0)


def backend_name() -> str:
    """Name the framework that computes."""
    return str(keras.backend.backend())


def sizes_of_states(cell: Any) -> list[Any]:
    """Return the size of each state, a number or a shape."""
    size = cell.state_size
    return keras.tree.flatten(size) if isinstance(size, (list, tuple)) else [size]


def called(cell: Any, x: Any, states: Sequence[Any], training: bool) -> tuple[Any, list[Any]]:
    """Call a cell as Keras' loop does."""
    nested = isinstance(cell.state_size, (list, tuple))
    given = keras.tree.pack_sequence_as(list(cell.state_size), list(states)) if nested else list(states)
    takes_training = isinstance(cell, keras.layers.Layer) and cell._call_has_training_arg
    keywords = {"training": training} if takes_training else {}
    output, after = cell(x, given, **keywords)
    return output, keras.tree.flatten(after)
