"""Chooses what a pass returns of the inside of a call: what is not returned need not be computed."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import keras

from .cell import lies_within_steps
from .loop import EMITTED

if TYPE_CHECKING:
    from .tap import Call


def inside_tensors(call: Call, quantities: frozenset[str]) -> dict[str, Any]:
    """Take what the loops or kernels of a call have left, by the keys of `tap.Call.key`."""
    tensors = {}
    for part, direction in enumerate(call.inside):
        keys, masks = (keras.tree.flatten(both) for both in (dropout_keys(call, part), direction.dropout))
        tensors.update({key: mask for key, mask in zip(keys, masks, strict=True) if key is not None})
        if direction.sequence is not None:
            # What is returned twice is copied twice.
            is_output = direction.layer.return_sequences and len(call.inside) == 1
            key = call.key("output") if is_output else call.key("sequence", part)
            tensors[key] = call.outputs[0] if is_output else direction.sequence
        if direction.mask is not None:
            tensors[call.key("inside_mask", part)] = direction.mask
        if direction.error is not None:
            tensors[call.key("loop_error", part)] = direction.error
        for name in kept(call, part, quantities):
            # What is returned twice is copied twice.
            if name == output_of_loop(call, part):
                tensors[call.key("output")] = call.outputs[0]
            else:
                tensors[call.key(f"loop_{name}", part)] = direction.loop[name]
        for position, state in enumerate(direction.initial):
            tensors[call.key(f"initial_{position}", part)] = state
    return tensors


def kept(call: Call, part: int, quantities: frozenset[str]) -> tuple[str, ...]:
    """Name what the loop keeps that is asked for, or needed for what lies within the steps."""
    direction = call.inside[part]
    if lies_within_steps(direction.layer.cell, quantities):
        return tuple(direction.loop)
    unasked = {
        name
        for name in ("hidden", "cell")
        if not quantities & {name, f"{name}_gradient", f"initial_{name}_gradient"}
    }
    return tuple(name for name in direction.loop if name.partition(".")[2] not in unasked)


def output_of_loop(call: Call, part: int) -> str:
    """Name the state whose sequence is the layer's output; empty where it is another tensor."""
    direction = call.inside[part]
    is_whole = direction.layer.return_sequences and direction.mask is None and len(call.inside) == 1
    name = direction.handed_on[-1] if is_whole and direction.handed_on else ""
    is_same = name in direction.loop and call.outputs[0].dtype == direction.loop[name].dtype
    return name if is_same and not name.endswith(EMITTED) else ""


def dropout_keys(call: Call, part: int) -> Any:
    """Name each dropout mask of a direction, in the structure of the masks; None where there is none."""
    numbers = count()

    def name(mask: Any) -> str | None:
        return None if mask is None else call.key(f"dropout_{next(numbers)}", part)

    return keras.tree.map_structure(name, call.inside[part].dropout)
