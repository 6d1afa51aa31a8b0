"""Lets the engine's loop take the place of Keras 3's, `RNN.inner_loop`, for one call of a layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from throughtime.adapters.attributes import replaced
from throughtime.adapters.keras.cell import inner_cells
from throughtime.adapters.keras.loop import Loop

from .dropout import dropout_masks


def run_in_loop(
    loop: Loop, original: Callable[..., Any], arguments: Mapping[str, Any], *, compares: bool
) -> tuple[Any, Any, list[Any]]:
    """Run a layer's cells in the engine's loop; return its output, its states and its cells' masks."""
    layer, masks = loop.layer, list[Any]()
    reset = layer._maybe_reset_dropout_masks
    loop.own = layer.inner_loop if compares else None

    def keep(cell: Any) -> None:
        """Note the masks that a layer's cells draw, before it throws them away."""
        if loop.training and cell is layer.cell:
            masks[:] = [dropout_masks(part) for part in inner_cells(cell)]
        reset(cell)

    with replaced(layer, "inner_loop", loop), replaced(layer, "_maybe_reset_dropout_masks", keep):
        result = original(**arguments)
    output, *states = result if layer.return_state else (result,)
    return output, states, masks


def initial_states(layer: Any, arguments: Mapping[str, Any]) -> list[Any]:
    """Return the states the pass starts from; empty where they are zero."""
    given = arguments.get("initial_state")
    if given is None:
        given = layer.states if layer.stateful else None
    flat = keras.tree.flatten(given) if given is not None else []
    return [keras.ops.convert_to_tensor(state) for state in flat if state is not None]
