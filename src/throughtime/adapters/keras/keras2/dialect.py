"""What the engine asks of tf_keras and Keras 2: see `adapters.keras.dialect`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from . import ops, weights
from .arrays import shape_of
from .cell import gate_names, inner_cells, plain_step, standard_kind, state_names, step
from .dropout import NO_DROPOUT, recurrent_masks, with_dropout_masks
from .internals import raw_variable
from .library import internal
from .ways import activation_name

__all__ = [
    "NO_DROPOUT",
    "activation_name",
    "dtype_of",
    "gate_names",
    "inner_cells",
    "is_float",
    "ops",
    "plain_step",
    "recurrent_masks",
    "repeats_first_state",
    "scan",
    "shape_of",
    "standard_kind",
    "state_names",
    "step",
    "tree",
    "weights_of_cell",
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


def weights_of_cell(cell: Any, values: Callable[[Any], Any], suffix: str = "") -> dict[str, Any]:
    """Read the weights of a cell, or what belongs to each of them, by name."""
    return weights.of_cell(cell, values, suffix)


def scan(layer: Any, step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, sequences: Any) -> Any:
    """Run `step` (carry, values of one step) -> (carry, outputs) along the first axis, in Keras' own loop."""
    # It wants three axes of every sequence, and a flat list of states.
    wide = tf.nest.map_structure(lambda each: each if len(each.shape) > 2 else each[..., None], sequences)
    are_wide = tf.nest.map_structure(lambda each: len(each.shape) > 2, sequences)

    def advance(values: Any, states: Any) -> tuple[Any, Any]:
        narrow = tf.nest.map_structure(lambda v, is_wide: v if is_wide else v[..., 0], values, are_wide)
        after, outputs = step(tf.nest.pack_sequence_as(carry, list(states)), narrow)
        return outputs, tf.nest.flatten(after)

    rnn = internal(layer, "backend").rnn
    options: dict[str, Any] = {"time_major": True}
    if "return_all_outputs" in inspect.signature(rnn).parameters:
        options["return_all_outputs"] = True
    _, outputs, final = rnn(advance, wide, tf.nest.flatten(carry), **options)
    return tf.nest.pack_sequence_as(carry, list(final)), outputs
