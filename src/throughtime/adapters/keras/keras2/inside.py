"""Looks inside a recurrent layer while it runs.

The layer's cells run in Keras' loop, which shows every state (`adapters.keras.loop`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from throughtime.adapters.attributes import replaced
from throughtime.adapters.keras.cell import inner_cells
from throughtime.adapters.keras.loop import Loop
from throughtime.adapters.keras.seen import SeenCall, SeenInside, names_kept

from . import dialect
from .dropout import Drawn, is_active
from .internals import (
    as_a_call,
    as_keras_calls,
    draws_at_each_step,
    every_layer,
    is_cast,
    raw_variable,
)
from .variables import standing_in
from .ways import halves

if TYPE_CHECKING:
    from .tap import Recorder


def first_of(value: Any) -> Any:
    """Take the first of several tensors: the sequence before its states, the mask before theirs."""
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    return value


def with_first(value: Any, first: Any) -> Any:
    """Replace the first of several tensors."""
    if not isinstance(value, (list, tuple)):
        return first
    return [with_first(value[0], first), *value[1:]]


def watch_halves(recorder: Recorder, layer: Any, stack: ExitStack) -> None:
    """Watch both layers of a Bidirectional."""
    for half in halves(layer):
        original, signature = as_keras_calls(half, half.call), inspect.signature(half.call)
        call = watched(recorder, half, original, signature, is_half=True)
        stack.enter_context(replaced(half, "call", call))


def watched(
    recorder: Recorder,
    layer: Any,
    original: Callable[..., Any],
    signature: inspect.Signature,
    *,
    is_half: bool = False,
) -> Callable[..., Any]:
    """Wrap a recurrent layer's call so that its states are recorded.

    Parameters
    ----------
    is_half : bool
        The layer is one direction of a Bidirectional: its own input and output are marked, those of the
        whole are another's.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        first = next(iter(bound.arguments))
        given = bound.arguments[first]
        record = _record_of(recorder, layer)
        if record is None:
            return original(*args, **kwargs)
        if not _is_one_sequence(given):
            record.not_inside = "it takes several sequences at once"
            return original(*args, **kwargs)
        inside = SeenInside(lambda: layer, is_closed=False)
        direction = _Direction(recorder, record, len(record.inside), inside, is_half)
        record.inside.append(inside)
        if is_half:
            marked = direction.marked("inputs", "half_input", first_of(given))
            bound.arguments[first] = with_first(given, marked)
        direction.keep_mask(first_of(bound.arguments.get("mask")))
        return _watch_loop(direction, original, bound.arguments)

    return as_a_call(call, signature)


def _record_of(recorder: Recorder, layer: Any) -> SeenCall | None:
    """Find the call that a layer, or the half of one, is in; None within a loop, which is not watched."""
    if not recorder.current:
        return None
    watched = recorder.found[recorder.current[-1].index].watched
    halves = [getattr(watched, name, None) for name in ("forward_layer", "backward_layer")]
    return recorder.current[-1] if any(layer is each for each in (watched, *halves)) else None


def _is_one_sequence(given: Any) -> bool:
    """Whether the input is one tensor, perhaps in a list before states."""
    return bool(tf.is_tensor(given[0] if isinstance(given, list) else given))


def _watch_loop(direction: _Direction, original: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Run the layer's cells in the loop, which keeps every state."""
    layer, inside, recorder = direction.layer, direction.inside, direction.recorder
    parts = inner_cells(layer.cell)
    inputs = next(iter(arguments.values()))
    inputs, initial, _ = layer._process_inputs(inputs, arguments.get("initial_state"), None)
    initial = tf.nest.map_structure(tf.convert_to_tensor, initial)
    for each in {id(cell): cell for cell in (layer.cell, *parts)}.values():
        layer._maybe_reset_cell_dropout_mask(each)
    drops = is_active(parts, recorder.training)
    drawn = Drawn(layer, parts) if drops else None
    inside.draws = recorder.training and draws_at_each_step(layer.cell)
    inside.is_compared = "weights" in recorder.wanted and not drops and not inside.draws

    def mark(name: str, tensor: Any) -> Any:
        return direction.marked("inside_gradients", name, tensor)

    def own(sequence: Any, states: Any, mask: Any, training: bool) -> tuple[Any, Any, Any]:
        return _own(layer, original, {**arguments, "training": training}, sequence, states)

    loop = Loop(
        dialect,
        layer,
        mark,
        recorder.training,
        own if inside.is_compared else None,
        dict if drawn is None else drawn.of_the_step,
    )
    sequence = inputs if drawn is None else drawn.dropped(inputs)
    with direction.marked_weights(), drawn.noted() if drawn else nullcontext():
        last, outputs, states = loop(sequence, initial, arguments.get("mask"), recorder.training)
    direction.keep_loop(loop, [] if drawn is None else drawn.of_all_steps(dialect, loop.masks))
    if layer.stateful:
        pairs = zip(tf.nest.flatten(layer.states), tf.nest.flatten(states), strict=True)
        layer.add_update([tf.compat.v1.assign(old, tf.cast(new, old.dtype)) for old, new in pairs])
    flat = states if isinstance(states, (list, tuple)) else [states]
    return direction.handed_back(outputs if layer.return_sequences else last, list(flat))


def _own(
    layer: Any, original: Callable[..., Any], arguments: dict[str, Any], sequence: Any, states: Any
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


@dataclass(frozen=True)
class _Direction:
    """One direction of one call, and the marks made for it."""

    recorder: Recorder
    record: SeenCall
    part: int
    inside: SeenInside
    is_half: bool

    @property
    def layer(self) -> Any:
        return self.inside.layer()

    def marked(self, wanted: str, name: str, tensor: Any) -> Any:
        return self.recorder.marked(wanted, self.record.key(name, self.part), tensor)

    def keep(self, name: str, tensor: Any) -> str:
        return self.recorder.keep(self.record.key(name, self.part), tensor)

    def keep_mask(self, mask: Any) -> None:
        self.inside.has_mask = mask is not None
        if mask is not None:
            self.keep("inside_mask", mask)

    def keep_loop(self, loop: Loop, masks: list[dict[str, list[Any]]]) -> None:
        """Keep what the loop left that is asked for, or needed for what lies within the steps."""
        quantities = self.recorder.request.quantities
        self.inside.handed_on = tuple(loop.handed_on)
        self.inside.kept = names_kept(dialect, self.layer.cell, loop.kept, quantities)
        for name in self.inside.kept:
            self.keep(f"loop_{name}", loop.kept[name])
        self.keep_initial(loop.initial)
        if loop.error is not None:
            self.keep("loop_error", loop.error)
        self.inside.dropout = [
            {
                what: [self.keep(f"dropout_{place}_{what}_{k}", mask) for k, mask in enumerate(each)]
                for what, each in by_cell.items()
            }
            for place, by_cell in enumerate(masks)
        ]

    def keep_initial(self, states: list[Any]) -> None:
        """Keep the states before the first step."""
        self.inside.initial_states = len(states)
        for position, state in enumerate(states):
            self.keep(f"initial_{position}", state)

    @contextmanager
    def marked_weights(self) -> Iterator[None]:
        """Let this call compute with copies of the weights, to tell its gradient from that of other uses.

        What regularisers add, and what other calls of a shared layer contribute, reaches the weights
        themselves and not these copies.
        """
        if "weights" not in self.recorder.wanted:
            yield
            return
        layer = self.layer
        copies = {}
        for position, weight in enumerate(layer.weights):
            copy = self.marked("weights", f"weight_{position}", raw_variable(weight).read_value())
            copies[id(weight)] = tf.cast(copy, layer.compute_dtype) if is_cast(weight) else copy
        with standing_in(every_layer(layer), copies):
            yield

    def handed_back(self, output: Any, states: list[Any]) -> Any:
        """Give the model what the layer is set to return, marked where a gradient enters."""
        if self.is_half:
            output = self.marked("outputs", "half_output", output)
        if not self.layer.return_state:
            return output
        flat = tf.nest.flatten(states)
        marked = [self.marked("outputs", f"state_{k}", state) for k, state in enumerate(flat)]
        return [output, *tf.nest.pack_sequence_as(states, marked)]
