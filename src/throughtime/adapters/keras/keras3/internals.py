"""The one place that reads what Keras does not publish; each reader says what it relies on."""

from __future__ import annotations

from typing import Any

import keras
from keras.src.backend.common import global_state
from keras.src.backend.common.tensor_attributes import get_tensor_attr, set_tensor_attr
from keras.src.layers.rnn.dropout_rnn_cell import DropoutRNNCell

from throughtime.adapters.keras.layers import every_layer

# What a loss reads from a tensor besides its values: the mask, and the logits behind a softmax.
_CARRIED = ("_keras_mask", "_keras_logits")
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


def compiled_loss(model: Any) -> Any:
    """Return the object `compile` made of the losses, None when there are none."""
    return getattr(model, "_compile_loss", None)


def single_losses(model: Any) -> list[Any]:
    """Keras' loss objects of each output, known after the compiled loss ran once."""
    return [entry.loss for entry in getattr(compiled_loss(model), "_flat_losses", None) or []]


def synchronise(model: Any) -> None:
    """Bring what training holds outside of the model into its variables: on JAX, inside `fit`."""
    state_sync = getattr(model, "jax_state_sync", None)
    if state_sync is not None:
        state_sync()


def keras_mask(tensor: Any) -> Any:
    """Return the mask that travels with a tensor, None without one."""
    return get_tensor_attr(tensor, "_keras_mask")


def set_keras_mask(tensor: Any, mask: Any) -> None:
    """Let a mask travel with a tensor."""
    set_tensor_attr(tensor, "_keras_mask", mask)


def keras_logits(tensor: Any) -> Any:
    """Return the logits that a softmax or sigmoid left for the loss to read, None without."""
    return get_tensor_attr(tensor, "_keras_logits")


def carry(source: Any, target: Any) -> Any:
    """Give `target` the mask and logits of `source`, as Keras keeps them beside a tensor."""
    for name in _CARRIED:
        value = get_tensor_attr(source, name)
        if value is not None:
            set_tensor_attr(target, name, value)
    return target


def set_keras_logits(tensor: Any, logits: Any) -> None:
    """Replace the logits that the loss will read."""
    set_tensor_attr(tensor, "_keras_logits", logits)


def forget_keras_logits(tensor: Any) -> None:
    """Let the loss read the tensor itself."""
    if hasattr(tensor, "_keras_logits"):
        del tensor._keras_logits


def global_state_of_this_thread() -> Any:
    """Return what has Keras' name counters, open scopes and variables without a value as attributes."""
    return global_state.GLOBAL_STATE_TRACKER
