"""Looks inside a recurrent layer while it runs, on the way that its cell allows.

Where `cells` knows the adjoint, the layer's own kernel runs once with sequences and states switched on, and
the model is handed what the layer was set to return. Every other cell runs as it is; what it started from
is kept, for `unrolled` to repeat it step by step.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from throughtime.adapters.attributes import replaced

from . import dropout
from .arrays import shape_of
from .cell import inner_cells
from .internals import as_a_call, as_keras_calls, every_layer, is_cast, raw_variable
from .own_cells import own_cell
from .variables import standing_in
from .ways import halves_of, is_closed

if TYPE_CHECKING:
    from .tap import Call, Recorder


@dataclass
class Inside:
    """What is known of one direction of a call, in its processing order, without tensors.

    Attributes
    ----------
    initial : int
        How many states it started from.
    dropout : list
        For each inner cell, the keys of its masks; (sample, time, …), in processing order.
    output_shape : tuple of int
        Of one step's output, without samples.
    """

    layer: Any
    is_closed: bool
    has_mask: bool = False
    initial: int = 0
    dropout: list[dict[str, list[str]]] = field(default_factory=list)
    output_shape: tuple[int, ...] = ()


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
    for half in halves_of(layer):
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
    closed = is_closed(layer, recorder.training, recorder.activations)
    watch = _watch_closed if closed else _watch_open

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
        inside = Inside(layer, closed)
        direction = _Direction(recorder, record, len(record.inside), inside, is_half)
        record.inside.append(inside)
        if is_half:
            marked = direction.marked("inputs", "half_input", first_of(given))
            bound.arguments[first] = with_first(given, marked)
        direction.keep_mask(first_of(bound.arguments.get("mask")))
        with direction.initial_kept():
            return watch(direction, lambda: original(*bound.args, **bound.kwargs))

    return as_a_call(call, signature)


def _record_of(recorder: Recorder, layer: Any) -> Call | None:
    """Find the call that a layer, or the half of one, is in; None within a loop, which is not watched."""
    if not recorder.current:
        return None
    watched = recorder.found[recorder.current[-1].index].watched
    halves = [getattr(watched, name, None) for name in ("forward_layer", "backward_layer")]
    return recorder.current[-1] if any(layer is each for each in (watched, *halves)) else None


def _is_one_sequence(given: Any) -> bool:
    """Whether the input is one tensor, perhaps in a list before states."""
    return bool(tf.is_tensor(given[0] if isinstance(given, list) else given))


def _watch_closed(direction: _Direction, run: Callable[[], Any]) -> Any:
    """Run the layer with its whole sequence switched on, and hand back what it is set to return."""
    layer = direction.inside.layer
    returns_sequences = layer.return_sequences
    with (
        direction.marked_weights(),
        replaced(layer, "return_sequences", True),
        replaced(layer, "return_state", True),
    ):
        sequence, *states = run()
    direction.keep("sequence", sequence)
    # Without a mask the last output is the last hidden state, and a gradient with respect to the
    # state need not pass through the stacked sequence.
    is_state = not direction.inside.has_mask and own_cell(layer) is None
    last = states[0] if is_state else sequence[:, -1]
    return direction.handed_back(sequence if returns_sequences else last, states)


def _watch_open(direction: _Direction, run: Callable[[], Any]) -> Any:
    """Run the layer as it is, and keep what it started from and what it dropped."""
    layer = direction.inside.layer
    parts = inner_cells(layer.cell)
    with direction.marked_weights():
        if dropout.is_active(parts, direction.recorder.training):
            result = _with_dropout(direction, parts, run)
        else:
            result = run()
    output, *states = result if isinstance(result, (list, tuple)) else (result,)
    direction.inside.output_shape = shape_of(output)[2 if layer.return_sequences else 1 :]
    return direction.handed_back(output, states)


def _with_dropout(direction: _Direction, parts: tuple[Any, ...], run: Callable[[], Any]) -> list[Any]:
    """Run a layer that drops; keep its masks, and return what it would."""
    layer = direction.inside.layer
    returns_sequences = layer.return_sequences
    riding = dropout.Riding(layer, parts)
    with riding.aboard(), replaced(layer, "return_sequences", True):
        result = run()
    sequence, *states = result if isinstance(result, (list, tuple)) else (result,)
    output, masks = riding.parted(sequence)
    direction.keep_dropout(masks)
    return [output if returns_sequences else output[:, -1], *states]


@dataclass(frozen=True)
class _Direction:
    """One direction of one call, and the marks made for it."""

    recorder: Recorder
    record: Call
    part: int
    inside: Inside
    is_half: bool

    def marked(self, wanted: str, name: str, tensor: Any) -> Any:
        return self.recorder.marked(wanted, self.record.key(name, self.part), tensor)

    def keep(self, name: str, tensor: Any) -> str:
        return self.recorder.keep(self.record.key(name, self.part), tensor)

    def keep_mask(self, mask: Any) -> None:
        self.inside.has_mask = mask is not None
        if mask is not None:
            self.keep("inside_mask", mask)

    def keep_dropout(self, drawn: list[dropout.Masks]) -> None:
        """Keep the masks of each inner cell; `Inside.dropout` holds their keys."""
        for place, masks in enumerate(drawn):
            keys = {
                what: [self.keep(f"dropout_{place}_{what}_{k}", mask) for k, mask in enumerate(each)]
                for what, each in masks.items()
            }
            self.inside.dropout.append(keys)

    @contextmanager
    def initial_kept(self) -> Iterator[None]:
        """Note the states that the layer starts from, wherever they come from."""
        layer = self.inside.layer
        original = layer._process_inputs

        def process(*args: Any, **kwargs: Any) -> Any:
            inputs, initial, constants = original(*args, **kwargs)
            flat = [tf.convert_to_tensor(state) for state in tf.nest.flatten(initial)]
            for position, state in enumerate(flat):
                self.keep(f"initial_{position}", state)
            self.inside.initial = len(flat)
            return inputs, initial, constants

        with replaced(layer, "_process_inputs", process):
            yield

    @contextmanager
    def marked_weights(self) -> Iterator[None]:
        """Let this call compute with copies of the weights, to tell its gradient from that of other uses.

        What regularisers add, and what other calls of a shared layer contribute, reaches the weights
        themselves and not these copies.
        """
        if "weights" not in self.recorder.wanted:
            yield
            return
        layer = self.inside.layer
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
        if not self.inside.layer.return_state:
            return output
        flat = tf.nest.flatten(states)
        marked = [self.marked("outputs", f"state_{k}", state) for k, state in enumerate(flat)]
        return [output, *tf.nest.pack_sequence_as(states, marked)]
