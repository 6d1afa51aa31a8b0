"""The configuration of a layer that a reader of the tree needs, as plain strings and numbers."""

from __future__ import annotations

from typing import Any

import keras

from throughtime._record import Attribute
from throughtime.adapters.keras.alignment import returns_reversed

from .inside import activation_name
from .own_cells import settings as own_settings


def of_layer(layer: Any) -> dict[str, Attribute]:
    """Read a layer's flags; those of a Bidirectional are its forward layer's."""
    flags: dict[str, Attribute] = {"layer_name": layer.name, "layer_class": type(layer).__name__}
    inner = getattr(layer, "forward_layer", layer)
    for name in ("return_sequences", "go_backwards", "stateful", "units", "zero_output_for_mask"):
        if hasattr(inner, name):
            flags[name] = int(getattr(inner, name) or 0)
    flags.update(of_cell(getattr(inner, "cell", None)))
    flags.update(own_settings(inner))
    if hasattr(layer, "merge_mode"):
        flags["merge_mode"] = str(layer.merge_mode)
    flags.update(trainable=int(layer.trainable), dtype=_computed_dtype(layer))
    flags["output_reversed"] = int(returns_reversed(layer))
    return flags


def _computed_dtype(layer: Any) -> str:
    """Return the precision the layer computes in: JAX takes float64 for float32 unless told otherwise."""
    held = keras.ops.zeros((), layer.compute_dtype)
    return str(keras.backend.standardize_dtype(held.dtype))


def of_cell(cell: Any) -> dict[str, Attribute]:
    """Read the flags of one cell: its class, activations, and where a GRU resets."""
    if cell is None:
        return {}
    flags: dict[str, Attribute] = {"cell_class": type(cell).__name__}
    for name in ("activation", "recurrent_activation"):
        function = getattr(cell, name, None)
        if function is not None:
            flags[name] = activation_name(function)
    if getattr(cell, "reset_after", None) is not None:
        flags["reset_after"] = int(cell.reset_after)
    return flags
