"""Looks inside a recurrent layer while it runs: the whole sequence of hidden states, whatever is returned.

The layer's own kernel runs once with sequences and states switched on; the model is handed what the layer
was set to return. `tap` uses this for the layers whose adjoint `cells` knows.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras

from .own_cells import check_own_cell, own_cell, standard_cell
from .restore import replaced

if TYPE_CHECKING:
    from .tap import Call, Recorder


@dataclass
class Inside:
    """What one direction of a recurrent layer computed, in its processing order."""

    layer: Any
    input: Any
    mask: Any
    initial: list[Any]
    sequence: Any


def why_not(layer: Any, training: bool) -> str:
    """Return the reason for which a layer cannot be looked into, empty if it can."""
    if isinstance(layer, keras.layers.Bidirectional):
        return why_not(layer.forward_layer, training) or why_not(layer.backward_layer, training)
    if not isinstance(layer, keras.layers.RNN):
        return "only recurrent layers have an inside"
    cell = layer.cell
    own = own_cell(layer)
    if own is not None:
        check_own_cell(own, layer)
    elif standard_cell(cell) is None:
        return f"the adjoint of a {type(cell).__name__} is not known"
    if not type(layer).call.__module__.startswith("keras."):
        return f"{type(layer).__name__} overrides call"
    if training and any(getattr(cell, name, None) for name in ("dropout", "recurrent_dropout")):
        return "dropout inside the layer is active, training=True"
    return ""


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

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        record = recorder.current[-1]
        direction = _Direction(recorder, record, len(record.inside), layer, is_half)
        bound = signature.bind(*args, **kwargs)
        first = next(iter(bound.arguments))
        if is_half:
            bound.arguments[first] = direction.marked("inputs", "half_input", bound.arguments[first])
        mask, initial = bound.arguments.get("mask"), _initial_states(layer, bound.arguments)
        with (
            direction.marked_weights(),
            replaced(layer, "return_sequences", True),
            replaced(layer, "return_state", True),
        ):
            sequence, *states = original(*bound.args, **bound.kwargs)
        record.inside.append(Inside(layer, bound.arguments[first], mask, initial, sequence))
        return direction.handed_back(mask, sequence, states)

    return call


def _initial_states(layer: Any, arguments: dict[str, Any]) -> list[Any]:
    """Return the states the pass starts from; empty where they are zero."""
    given = arguments.get("initial_state")
    if given is None:
        given = layer.states if layer.stateful else None
    if given is None and own_cell(layer) is not None:  # a cell of one's own may start from anything
        given = layer.get_initial_state(keras.ops.shape(next(iter(arguments.values())))[0])
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

    def handed_back(self, mask: Any, sequence: Any, states: list[Any]) -> Any:
        """Give the model what the layer is set to return, marked where a gradient enters."""
        # Without a mask the last output is the last hidden state, and a gradient with respect to the
        # state need not pass through the stacked sequence.
        is_output = mask is None and own_cell(self.layer) is None
        last = states[0] if is_output else sequence[:, -1]
        output = sequence if self.layer.return_sequences else last
        if self.is_half:
            output = self.marked("outputs", "half_output", output)
        if not self.layer.return_state:
            return output
        return (output, *(self.marked("outputs", f"state_{k}", state) for k, state in enumerate(states)))
