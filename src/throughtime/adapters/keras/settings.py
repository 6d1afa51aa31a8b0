"""The configuration of a layer that a reader of the tree needs, as plain strings and numbers."""

from __future__ import annotations

from typing import Any

from throughtime.adapters.records import Attribute

from .alignment import returns_reversed
from .dialect import Dialect
from .library import is_a


def of_layer(keras: Dialect, layer: Any) -> dict[str, Attribute]:
    """Read a layer's flags; those of a Bidirectional are its forward layer's."""
    flags: dict[str, Attribute] = {"layer_name": layer.name, "layer_class": type(layer).__name__}
    inner = getattr(layer, "forward_layer", layer)
    for name in ("return_sequences", "go_backwards", "stateful", "units", "zero_output_for_mask"):
        if isinstance(getattr(inner, name, None), (bool, int)):
            flags[name] = int(getattr(inner, name))
    flags.update(of_cell(keras, getattr(inner, "cell", None)))
    if is_a(layer, "Bidirectional"):
        flags["merge_mode"] = str(layer.merge_mode)
    flags.update(trainable=int(layer.trainable), dtype=keras.compute_dtype(layer))
    flags["output_reversed"] = int(returns_reversed(layer))
    return flags


def of_cell(keras: Dialect, cell: Any) -> dict[str, Attribute]:
    """Read the flags of one cell: its class, activations, and where a GRU resets."""
    if cell is None:
        return {}
    flags: dict[str, Attribute] = {"cell_class": type(cell).__name__}
    for name in ("activation", "recurrent_activation"):
        function = getattr(cell, name, None)
        if function is not None:
            flags[name] = keras.activation_name(cell, function)
    if getattr(cell, "reset_after", None) is not None:
        flags["reset_after"] = int(cell.reset_after)
    return flags
