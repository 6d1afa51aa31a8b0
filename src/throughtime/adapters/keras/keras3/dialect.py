"""What the engine asks of Keras 3: see `adapters.keras.dialect`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops, tree

from . import weights
from .backend import module
from .cell import (
    NO_DROPOUT,
    gate_names,
    inner_cells,
    plain_step,
    recurrent_masks,
    standard_kind,
    state_names,
    step,
    with_dropout_masks,
)
from .internals import repeats_first_state, zeroes_masked_output

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


def is_float(tensor: Any) -> bool:
    """Whether a gradient with respect to this tensor or variable can exist."""
    return bool(keras.backend.is_float_dtype(dtype_of(tensor)))


def dtype_of(tensor: Any) -> str:
    """Name a tensor's dtype."""
    return str(keras.backend.standardize_dtype(tensor.dtype))


def shape_of(tensor: Any) -> tuple[int | None, ...]:
    """Return a tensor's shape."""
    return tuple(tensor.shape)


def scan(layer: Any, step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, sequences: Any) -> Any:
    """Run a step over time in the backend's loop."""
    return module().scan(step, carry, sequences)


def activation_name(cell: Any, function: Any) -> str:
    """Name an activation as Keras does; another function of the same name is not that activation."""
    name = getattr(function, "__name__", type(function).__name__)
    known = getattr(keras.activations, name, None)
    return str(name) if function is known else f"{name} of one's own"


def weights_of_cell(cell: Any, values: Callable[[Any], Any], suffix: str = "") -> dict[str, Any]:
    """Read the weights of a cell, or what belongs to each of them, by name."""
    return weights.of_cell(cell, values, suffix)
