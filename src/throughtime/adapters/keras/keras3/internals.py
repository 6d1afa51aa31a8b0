"""The one place that reads what Keras does not publish; each reader says what it relies on."""

from __future__ import annotations

from typing import Any

import keras
from keras.src.backend.common import global_state
from keras.src.backend.common.tensor_attributes import get_tensor_attr, set_tensor_attr
from keras.src.layers.rnn.dropout_rnn_cell import DropoutRNNCell

from throughtime.adapters.keras.layers import every_layer

_counts: dict[str, int] = {}


def automatic_name_count(layer: Any, prefix: str) -> int:
    """How many names Keras has given out for this prefix, in the thread that has given out most.

    Keras counts in each thread apart, and a thread sees its own count alone: the others' are remembered.
    """
    count = int((global_state.get_global_attribute("object_name_uids") or {}).get(prefix, 0))
    _counts[prefix] = max(count, _counts.get(prefix, 0))
    return _counts[prefix]


def zeroes_masked_output(layer: Any) -> bool:
    """Whether a masked step of a recurrent layer emits 0: the unrolled loop on JAX never does."""
    return bool(layer.zero_output_for_mask) and not (layer.unroll and keras.backend.backend() == "jax")


def repeats_first_state(layer: Any) -> bool:
    """Whether a masked step emits the first state, as the loop on JAX does, and not the output before it."""
    return keras.backend.backend() == "jax" and not layer.unroll


def unbuilt_in_cells(model: Any) -> list[str]:
    """Name layers inside recurrent cells that have no weights before the cell has run."""
    recurrent = [layer for layer in every_layer(model) if isinstance(layer, keras.layers.RNN)]
    cells = [layer.cell for layer in recurrent if isinstance(layer.cell, keras.layers.Layer)]
    inner = {layer.name: layer for cell in cells for layer in every_layer(cell)}
    has_weights = {name for name, layer in inner.items() if type(layer).build is not keras.layers.Layer.build}
    return [name for name, layer in inner.items() if not layer.built and name in has_weights]


def draws_at_each_step(cell: Any) -> bool:
    """Whether a cell holds random generators besides those of Keras' cells, which draw once a sequence."""
    layers = [] if not isinstance(cell, keras.layers.Layer) else every_layer(cell)
    return any(layer._seed_generators for layer in layers if not isinstance(layer, DropoutRNNCell))


def synchronise(model: Any) -> None:
    """Bring what training holds outside of the model into its variables: on JAX, inside `fit`."""
    state_sync = getattr(model, "jax_state_sync", None)
    if state_sync is not None:
        state_sync()


def beside(tensor: Any, name: str) -> Any:
    """Return what Keras keeps beside a tensor, its mask or logits; None for nothing."""
    return get_tensor_attr(tensor, name)


def set_beside(tensor: Any, name: str, value: Any) -> None:
    """Keep something beside a tensor, None for nothing."""
    if value is not None:
        set_tensor_attr(tensor, name, value)
    elif hasattr(tensor, name):
        delattr(tensor, name)


def global_state_of_this_thread() -> Any:
    """Return what has Keras' name counters, open scopes and variables without a value as attributes."""
    return global_state.GLOBAL_STATE_TRACKER
