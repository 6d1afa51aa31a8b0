"""Looks inside a recurrent layer while it runs, on the way that the backend allows.

The layer's cells run in the backend's loop, which shows every state (`loop`). The loop on torch is Python's
and slow: there a cell whose adjoint `cells` knows keeps its kernel, which runs once with sequences and
states switched on, and the model is handed what the layer was set to return.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import keras

from throughtime.adapters.attributes import replaced
from throughtime.adapters.keras.cell import inner_cells
from throughtime.adapters.keras.loop import Loop

from . import dialect
from .dropout import dropout_masks
from .internals import draws_at_each_step
from .ways import is_closed

if TYPE_CHECKING:
    from .tap import Call, Recorder


@dataclass
class Inside:
    """What one direction of a recurrent layer computed, in its processing order.

    `sequence` is every hidden state where the layer ran its own kernel; else `loop` has every state of each
    inner cell, `dropout` their masks, and `initial` is never empty.
    """

    layer: Any
    input: Any
    mask: Any
    initial: list[Any]
    sequence: Any = None
    dropout: list[Any] = field(default_factory=list)
    loop: dict[str, Any] = field(default_factory=dict)
    handed_on: list[str] = field(default_factory=list)
    error: Any = None
    draws: bool = False


def watch_halves(recorder: Recorder, layer: Any, stack: ExitStack) -> None:
    """Watch both layers of a Bidirectional.

    Its fused path on some backends calls neither of them; each half's own fused kernel stays in use.
    """
    for name in ("_can_attempt_fused_lstm", "_can_attempt_fused_gru"):
        if hasattr(layer, name):
            stack.enter_context(replaced(layer, name, lambda *args, **kwargs: False))
    for half in (layer.forward_layer, layer.backward_layer):
        call = watched(recorder, half, half.call, is_half=True)
        stack.enter_context(replaced(half, "call", call))


def watched(
    recorder: Recorder, layer: Any, original: Callable[..., Any], *, is_half: bool = False
) -> Callable[..., Any]:
    """Wrap a recurrent layer's call so that its states are recorded.

    Parameters
    ----------
    is_half : bool
        The layer is one direction of a Bidirectional: its own input and output are marked, those of the
        whole are another's.
    """
    signature = inspect.signature(original)
    closed = is_closed(layer, recorder.request.training, recorder.request.activations)
    watch = _watch_closed if closed else _watch_loop

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        record = recorder.current[-1]
        direction = _Direction(recorder, record, len(record.inside), layer, is_half)
        bound = signature.bind(*args, **kwargs)
        first = next(iter(bound.arguments))
        if is_half:
            bound.arguments[first] = direction.marked("inputs", "half_input", bound.arguments[first])
        mask, initial = bound.arguments.get("mask"), _initial_states(layer, bound.arguments)
        inside = Inside(layer, bound.arguments[first], mask, initial)
        record.inside.append(inside)
        return watch(direction, inside, lambda: original(*bound.args, **bound.kwargs))

    return call


def _watch_closed(direction: _Direction, inside: Inside, run: Callable[[], Any]) -> Any:
    """Run the layer with its whole sequence switched on, and hand back what it is set to return."""
    layer = direction.layer
    with (
        direction.marked_weights(),
        replaced(layer, "return_sequences", True),
        replaced(layer, "return_state", True),
    ):
        inside.sequence, *states = run()
    # Without a mask the last output is the last hidden state, and a gradient with respect to the
    # state need not pass through the stacked sequence.
    last = states[0] if inside.mask is None else inside.sequence[:, -1]
    return direction.handed_back(inside.sequence if layer.return_sequences else last, states)


def _watch_loop(direction: _Direction, inside: Inside, run: Callable[[], Any]) -> Any:
    """Let the layer's cells run in our loop, which keeps every state."""
    layer, training = direction.layer, direction.recorder.request.training

    def mark(name: str, tensor: Any) -> Any:
        return direction.marked("inside_gradients", name, tensor)

    inside.draws = training and draws_at_each_step(layer.cell)
    is_compared = "weights" in direction.recorder.wanted and not inside.draws
    loop = Loop(dialect, layer, mark, training, layer.inner_loop if is_compared else None)
    with (
        direction.marked_weights(),
        replaced(layer, "inner_loop", loop),
        _dropout_kept(layer, inside, training),
    ):
        result = run()
    inside.initial, inside.loop, inside.handed_on = loop.initial, loop.kept, loop.handed_on
    inside.error = loop.error
    output, *states = result if layer.return_state else (result,)
    return direction.handed_back(output, states)


@contextmanager
def _dropout_kept(layer: Any, inside: Inside, training: bool) -> Iterator[None]:
    """Note the dropout masks that the layer's cells draw, before it throws them away."""
    reset = layer._maybe_reset_dropout_masks

    def keep(cell: Any) -> None:
        if training and cell is layer.cell:
            inside.dropout = [dropout_masks(part) for part in inner_cells(cell)]
        reset(cell)

    with replaced(layer, "_maybe_reset_dropout_masks", keep):
        yield


def _initial_states(layer: Any, arguments: dict[str, Any]) -> list[Any]:
    """Return the states the pass starts from; empty where they are zero."""
    given = arguments.get("initial_state")
    if given is None:
        given = layer.states if layer.stateful else None
    flat = keras.tree.flatten(given) if given is not None else []
    return [keras.ops.convert_to_tensor(state) for state in flat if state is not None]


@dataclass(frozen=True)
class _Direction:
    """One direction of one call, and the marks made for it."""

    recorder: Recorder
    record: Call
    part: int
    layer: Any
    is_half: bool

    def marked(self, wanted: str, name: str, tensor: Any) -> Any:
        return self.recorder.marked(wanted, self.record.key(name, self.part), tensor)

    @contextmanager
    def marked_weights(self) -> Iterator[None]:
        """Let this call compute with copies of the weights, to tell its gradient from that of other uses.

        What regularisers add, and what other calls of a shared layer contribute, reaches the weights
        themselves and not these copies.
        """
        values = self.recorder.scope.state_mapping
        kept = {id(weight): values[id(weight)] for weight in self.layer.weights}
        for position, weight in enumerate(self.layer.weights):
            values[id(weight)] = self.marked("weights", f"weight_{position}", kept[id(weight)])
        try:
            yield
        finally:
            values.update(kept)

    def handed_back(self, output: Any, states: list[Any]) -> Any:
        """Give the model what the layer is set to return, marked where a gradient enters."""
        if self.is_half:
            output = self.marked("outputs", "half_output", output)
        if not self.layer.return_state:
            return output
        marked = [
            self.marked("outputs", f"state_{k}", state) for k, state in enumerate(keras.tree.flatten(states))
        ]
        return (output, *keras.tree.pack_sequence_as(states, marked))
