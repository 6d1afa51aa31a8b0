"""Recurrent layers of Keras 2: their loop, and what else Keras 3 does another way."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import tensorflow as tf
from tensorflow.python.autograph.core import ag_ctx

from throughtime.adapters.attributes import replaced
from throughtime.adapters.keras.cell import inner_cells
from throughtime.adapters.keras.library import (
    every_layer,
    internal,
    is_a,
    is_own,
)
from throughtime.adapters.keras.loop import Loop, scan_by_rnn

from .dropout import Drawn

JOINS_OUTER_STEPS = True
SEVERAL: type = list
# The same names in Keras 2 and in Keras 3 for functions with other slopes.
_OTHER_SLOPES = ("hard_sigmoid",)


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


def zeroes_masked_output(layer: Any) -> bool:
    """Whether a masked step of a recurrent layer emits 0."""
    return bool(layer.zero_output_for_mask)


def repeats_first_state(layer: Any) -> bool:
    """Whether a masked step emits the first state: it emits the output before it."""
    return False


def scan(layer: Any, step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, sequences: Any) -> Any:
    """Run `step` (carry, values of one step) -> (carry, outputs) along the first axis, in Keras' own loop."""
    rnn = internal(layer, "backend").rnn
    options = {"time_major": True, "return_all_outputs": True}
    known = inspect.signature(rnn).parameters  # older ones return all outputs anyhow
    own = partial(rnn, **{name: value for name, value in options.items() if name in known})
    return scan_by_rnn(tf.nest, own, step, carry, sequences)


def activation_name(cell: Any, function: Any) -> str:
    """Name an activation as Keras does; another function of the same name is not that activation."""
    name = str(getattr(function, "__name__", type(function).__name__))
    if name in _OTHER_SLOPES:
        return f"{name} of Keras 2"
    is_known = is_own(inspect.unwrap(function), cell) or function in (tf.tanh, tf.sigmoid)
    return name if is_known else f"{name} of one's own"


def as_keras_calls(layer: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a layer's call as Keras makes it: in a graph, a user's own goes through autograph."""
    converts = getattr(layer, "_should_use_autograph", None)
    if tf.executing_eagerly() or not (converts() if converts else _is_subclassed(layer)):
        return original
    context = ag_ctx.ControlStatusCtx(status=ag_ctx.Status.ENABLED)
    converted: Callable[..., Any] = tf.__internal__.autograph.tf_convert(original, context)
    return converted


def _is_subclassed(layer: Any) -> bool:
    return bool(internal(layer, "engine.base_layer_utils").is_subclassed(layer))


def loop_detector() -> Callable[[], bool]:
    """Make what says later whether the pass is in a loop or branch of the user's."""
    graph: Any = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()

    def is_in_a_loop() -> bool:
        if tf.executing_eagerly():
            return False
        here: Any = tf.compat.v1.get_default_graph()
        return here is not graph or here._get_control_flow_context() is not None

    return is_in_a_loop


def draws_at_each_step(cell: Any) -> bool:
    """Whether a cell holds layers that draw, besides those of Keras' cells, whose masks are known."""
    names = ("BaseRandomLayer", "Dropout", "GaussianDropout", "GaussianNoise", "AlphaDropout")
    return any(is_a(each, *names) and not is_a(each, "DropoutRNNCellMixin") for each in every_layer(cell))
