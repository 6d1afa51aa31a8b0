"""Looks inside a recurrent layer while it runs, on the way that the backend allows.

The layer's cells run in the backend's loop, which shows every state (`loop`). The loop on torch is Python's
and slow: there a cell whose adjoint `cells` knows keeps its kernel, which runs once with sequences and
states switched on, and the model is handed what the layer was set to return.
"""

import inspect
import weakref
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import count

from throughtime.adapters.attributes import replaced

from .cell import is_closed
from .contracts import Call, Layer, Masks, Tensor
from .dialect import Dialect
from .every_step import OF_GATES, wants_jacobian
from .library import halves, is_tensor
from .loop import MARKED, Loop
from .recorder import Recorder, SeenCall, SeenInside, first_of, lies_within_steps, with_first


def run(
    recorder: Recorder, layer: Layer, original: Call, bound: inspect.BoundArguments, *, is_half: bool = False
) -> object:
    """Run a recurrent layer so that its states are recorded.

    With `is_half`, half of a Bidirectional, its input and output are marked as well.
    """
    first = next(iter(bound.arguments))
    given, record = bound.arguments[first], _record_of(recorder, layer)
    if record is None:
        return original(*bound.args, **bound.kwargs)
    if not is_tensor(given[0] if isinstance(given, list) else given):
        record.not_inside = "it takes several sequences at once"
        return original(*bound.args, **bound.kwargs)
    closed = is_closed(recorder.keras, layer, recorder.request.training, recorder.request.activations)
    known = SeenInside(record, len(record.inside), weakref.ref(layer), closed)
    direction = _Direction(recorder, layer, known, is_half)
    record.inside.append(known)
    if is_half:
        bound.arguments[first] = with_first(given, direction.marked("inputs", "half_input", first_of(given)))
    watched = direction.closed if closed else direction.in_loop
    return direction.handed_back(*watched(original, bound.arguments))


def _record_of(recorder: Recorder, layer: Layer) -> SeenCall | None:
    """Find the call that a layer, or the half of one, is in; None within a loop, which is not watched."""
    if not recorder.current:
        return None
    outer = recorder.found[recorder.current[-1].index].layer
    return recorder.current[-1] if any(layer is each for each in (outer, *halves(outer))) else None


@dataclass(frozen=True)
class _Direction:
    """One direction of one call, and the marks made for it."""

    recorder: Recorder
    layer: Layer
    known: SeenInside
    is_half: bool

    @property
    def keras(self) -> Dialect:
        return self.recorder.keras

    def marked(self, wanted: str, name: str, tensor: Tensor) -> Tensor:
        return self.recorder.marked(wanted, self.known.key(name), tensor)

    def keep(self, name: str, tensor: Tensor) -> str:
        return self.recorder.keep(self.known.key(name), tensor)

    def closed(self, original: Call, arguments: dict[str, object]) -> tuple[Tensor, Sequence[Tensor]]:
        """Run the layer with its whole sequence switched on, and return what it is set to return."""
        keras, layer = self.keras, self.layer
        returns_sequences, mask = layer.return_sequences, first_of(arguments.get("mask"))
        if mask is not None:
            self.keep("inside_mask", mask)
        given = arguments.get("initial_state")
        given = layer.states if given is None and layer.stateful else given
        initial = [] if given is None else keras.tree.flatten(given)
        self.keep_initial([keras.ops.convert_to_tensor(each) for each in initial if each is not None])
        with (
            self.marked_weights(),
            replaced(layer, "return_sequences", True),
            replaced(layer, "return_state", True),
        ):
            sequence, *states = original(**arguments)
        self.keep("sequence", sequence)
        # Without a mask the last output is the last hidden state, and a gradient with respect to the
        # state need not pass through the stacked sequence.
        last = sequence[:, -1] if mask is not None else states[0]
        return (sequence if returns_sequences else last), states

    def in_loop(self, original: Call, arguments: dict[str, object]) -> tuple[Tensor, Sequence[Tensor]]:
        """Let the layer's cells run in our loop, which keeps every state."""
        recorder, layer, keras = self.recorder, self.layer, self.keras
        draws = recorder.request.training and keras.draws_at_each_step(layer.cell)
        asked = recorder.request.quantities
        loop = Loop(keras, layer, partial(self.marked, "inside_gradients"), recorder.request.training)
        loop.shows_gates = bool(asked & {"gate_activation", *OF_GATES})
        with self.marked_weights():
            compares = "weights" in recorder.wanted and not draws
            output, states, masks = keras.run_in_loop(loop, original, arguments, compares=compares)
        self.keep_loop(loop, masks)
        follows = loop.entering is not None and "certificate" not in asked
        follows = follows and not wants_jacobian(keras, layer.cell, recorder.request)
        if not (draws or follows) and lies_within_steps(keras, layer.cell, recorder.request):
            recorder.loops[self.known.key("within")] = {
                "input": first_of(next(iter(arguments.values()))),
                "mask": first_of(arguments.get("mask")),
                "initial": loop.initial,
                "dropout": masks,
                "entering": loop.entering,
                "kept": {name: state for name, state in loop.kept.items() if MARKED not in name},
            }
        return output, states

    def keep_initial(self, states: list[Tensor]) -> None:
        """Keep the states before the first step; none stand for zeros."""
        for position, state in enumerate(states):
            self.keep(f"initial_{position}", state)

    def keep_loop(self, loop: Loop, masks: Sequence[Masks]) -> None:
        """Keep what the loop left that is asked for, or needed for what lies within the steps."""
        known, tree, numbers = self.known, self.keras.tree, count()
        known.handed_on, known.some = tuple(loop.handed_on), loop.some
        has_marks = self.recorder.request.quantities & {"gate_activation", "gate_gradient"}
        known.kept = tuple(name for name in loop.kept if has_marks or MARKED not in name)
        for name in known.kept:
            self.keep(f"loop_{name}", loop.kept[name])
        marked = [loop.kept[name] for name in known.kept if MARKED in name]
        self.recorder.measure_output(marked, is_watched=True, axis=1)
        if loop.entering is not None and loop.shows_gates:  # the only gate of a SimpleRNN is its state
            gates = loop.kept["0.hidden"][:, :, None] if loop.gates is None else loop.gates
            self.keep("within_0.gate_activation", gates)
        self.keep_initial(loop.initial)
        if loop.error is not None:
            self.keep("loop_error", loop.error)
        known.dropout = tree.map_structure(lambda mask: self.keep(f"dropout_{next(numbers)}", mask), masks)

    def marked_weights(self) -> AbstractContextManager[None]:
        """Let this call compute with copies of the weights, to separate its gradient from that of other uses.

        Gradients of regularisers and of other calls of a shared layer reach the weights, not these copies.
        """
        if "weights" not in self.recorder.wanted:
            return nullcontext()
        return self.keras.with_weights(
            self.layer, lambda place, weight: self.marked("weights", f"weight_{place}", weight)
        )

    def handed_back(self, output: Tensor, states: Sequence[Tensor]) -> object:
        """Give the model what the layer is set to return, marked where a gradient enters."""
        if self.is_half:
            output = self.marked("outputs", "half_output", output)
        if not self.layer.return_state:
            return output
        flat = self.keras.tree.flatten(states)
        marked = [self.marked("outputs", f"state_{place}", state) for place, state in enumerate(flat)]
        return self.keras.SEVERAL([output, *self.keras.tree.pack_sequence_as(states, marked)])
