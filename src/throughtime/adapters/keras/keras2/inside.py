"""Lets the engine's loop take the place of Keras 2's for one call of a layer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from throughtime.adapters.attributes import replaced
from throughtime.adapters.keras.cell import inner_cells
from throughtime.adapters.keras.loop import Loop

from .dropout import Drawn


def run_in_loop(
    loop: Loop, original: Callable[..., Any], arguments: Mapping[str, Any], *, compares: bool
) -> tuple[Any, Any, list[Any]]:
    """Run a layer's cells in the engine's loop; return its output, its states and its cells' masks."""
    layer, training = loop.layer, loop.training
    inputs = next(iter(arguments.values()))
    inputs, initial, _ = layer._process_inputs(inputs, arguments.get("initial_state"), None)
    initial = tf.nest.map_structure(tf.convert_to_tensor, initial)
    parts = inner_cells(layer.cell)
    for each in {id(cell): cell for cell in (layer.cell, *parts)}.values():
        layer._maybe_reset_cell_dropout_mask(each)
    drawn = Drawn(layer, parts, training)
    loop.drawn = drawn.of_the_step

    def own(sequence: Any, states: Any, mask: Any, training: bool) -> tuple[Any, Any, Any]:
        return _own(layer, original, {**arguments, "training": training}, sequence, states)

    loop.own = own if compares and not drawn.is_active else None
    sequence = drawn.dropped(inputs)
    with drawn.noted():
        last, outputs, states = loop(sequence, initial, arguments.get("mask"), training)
    if layer.stateful:
        pairs = zip(tf.nest.flatten(layer.states), tf.nest.flatten(states), strict=True)
        layer.add_update([tf.compat.v1.assign(old, tf.cast(new, old.dtype)) for old, new in pairs])
    states = list(states) if isinstance(states, (list, tuple)) else [states]
    return outputs if layer.return_sequences else last, states, drawn.of_all_steps(loop)


def _own(
    layer: Any, original: Callable[..., Any], arguments: Mapping[str, Any], sequence: Any, states: Any
) -> tuple[Any, Any, Any]:
    """Run the layer as it is, from the same states."""
    first = next(iter(arguments))
    known = {"training", "mask", "initial_state"} & {*inspect.signature(layer.call).parameters}
    given = {name: value for name, value in arguments.items() if name in known}
    given |= {first: sequence, "initial_state": states}
    with (
        replaced(layer, "return_sequences", True),
        replaced(layer, "return_state", True),
        replaced(layer, "stateful", False),
    ):
        outputs, *final = original(**given)
    return outputs[:, -1], outputs, final


def initial_states(layer: Any, arguments: Mapping[str, Any]) -> list[Any]:
    """Return the states that a call starts from."""
    inputs = next(iter(arguments.values()))
    _, initial, _ = layer._process_inputs(inputs, arguments.get("initial_state"), None)
    return [tf.convert_to_tensor(state) for state in tf.nest.flatten(initial)]
