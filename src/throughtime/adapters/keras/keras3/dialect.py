"""What the engine asks of Keras 3: see `adapters.keras.dialect`."""

# ruff: noqa: PLC0414 - what is imported under its own name is part of the dialect

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops as ops
from keras import tree as tree

from throughtime.adapters.keras.library import overrides
from throughtime.adapters.records import Array, Attribute

from .arrays import numpy as numpy
from .backend import called as called
from .backend import evaluated_once as evaluated_once
from .backend import execution as execution
from .backend import module
from .backend import runs_at_once as runs_at_once
from .backend import traced as traced
from .backend import with_weights as with_weights
from .dropout import NO_DROPOUT as NO_DROPOUT
from .dropout import recurrent_masks as recurrent_masks
from .dropout import with_dropout_masks as with_dropout_masks
from .inside import initial_states as initial_states
from .inside import run_in_loop as run_in_loop
from .internals import automatic_name_count as automatic_name_count
from .internals import beside as beside
from .internals import draws_at_each_step as draws_at_each_step
from .internals import repeats_first_state as repeats_first_state
from .internals import set_beside as set_beside
from .internals import synchronise as synchronise
from .internals import zeroes_masked_output as zeroes_masked_output
from .loss import added_losses as added_losses
from .loss import adds_losses as adds_losses
from .loss import compiled_losses as compiled_losses
from .loss import computed_loss as computed_loss
from .loss import given_losses as given_losses
from .loss import is_compiled as is_compiled
from .loss import loss_function as loss_function
from .loss import losses_to_call as losses_to_call
from .loss import single_losses as single_losses
from .models import check_model as check_model
from .restore import untouched as untouched
from .tensors import batch as batch
from .tensors import joined as joined
from .tensors import taken as taken
from .variables import numbers_of as numbers_of

JOINS_OUTER_STEPS = False
SEVERAL: type = tuple
AVERAGES_OVER_VALID_STEPS = True


def as_keras_calls(layer: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a layer's call as it is."""
    return original


def loop_detector() -> Callable[[], bool]:
    """Make what says whether the pass is in a loop of the user's: not known on these backends."""
    return lambda: False


def is_tensor(value: Any) -> bool:
    """Whether a value is one tensor."""
    return hasattr(value, "dtype") and hasattr(value, "shape")


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


def weight_values(model: Any, variables: Sequence[Any]) -> dict[int, Any]:
    """Read variables as they are now, by their identity."""
    return {id(variable): variable.value for variable in variables}


def activation_name(cell: Any, function: Any) -> str:
    """Name an activation as Keras does; another function of the same name is not that activation."""
    name = getattr(function, "__name__", type(function).__name__)
    known = getattr(keras.activations, name, None)
    return str(name) if function is known else f"{name} of one's own"
