"""What the engine asks of tf_keras and Keras 2: see `adapters.keras.dialect`."""

# ruff: noqa: PLC0414 - what is imported under its own name is part of the dialect

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from throughtime.adapters.keras.layers import every_layer
from throughtime.adapters.keras.library import (
    belongs_to_a_graph,
    internal,
    is_a,
    is_own,
    overrides,
    package_of_object,
    version,
)
from throughtime.adapters.keras.loop import scan_by_rnn
from throughtime.adapters.records import Array, Attribute

from . import ops as ops
from .arrays import batch as batch
from .arrays import joined as joined
from .arrays import numpy as numpy
from .arrays import shape_of as shape_of
from .arrays import taken as taken
from .dropout import NO_DROPOUT as NO_DROPOUT
from .dropout import recurrent_masks as recurrent_masks
from .dropout import with_dropout_masks as with_dropout_masks
from .inside import initial_states as initial_states
from .inside import run_in_loop as run_in_loop
from .internals import as_keras_calls as as_keras_calls
from .internals import automatic_name_count as automatic_name_count
from .internals import beside as beside
from .internals import compute_dtype as compute_dtype
from .internals import draws_at_each_step as draws_at_each_step
from .internals import loop_detector as loop_detector
from .internals import path_of as path_of
from .internals import raw_variable
from .internals import set_beside as set_beside
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
from .models import weight_values as weight_values
from .passes import called as called
from .passes import evaluated_once as evaluated_once
from .passes import execution as execution
from .passes import traced as traced
from .passes import with_weights as with_weights
from .restore import untouched as untouched
from .variables import numbers_of as numbers_of

tree = tf.nest
JOINS_OUTER_STEPS = True
SEVERAL: type = list
runs_at_once = execution
AVERAGES_OVER_VALID_STEPS = False
# The same names in Keras 2 and in Keras 3 for functions with other slopes.
_OTHER_SLOPES = ("hard_sigmoid",)


def is_tensor(value: Any) -> bool:
    """Whether a value is one tensor."""
    return bool(tf.is_tensor(value))


def synchronise(model: Any) -> None:
    """Do nothing: training holds nothing outside of the model."""


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


def activation_name(cell: Any, function: Any) -> str:
    """Name an activation as Keras does; another function of the same name is not that activation."""
    name = str(getattr(function, "__name__", type(function).__name__))
    if name in _OTHER_SLOPES:
        return f"{name} of Keras 2"
    is_known = is_own(inspect.unwrap(function), cell) or function in (tf.tanh, tf.sigmoid)
    return name if is_known else f"{name} of one's own"
