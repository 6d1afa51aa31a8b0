"""Collects the calls of torch's kernels, fused ones and cells: records in input time."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch

from throughtime.adapters.records import UNREACHED, Array, Attribute, DirectionRecord, LayerRecord

from . import description, weights
from .calls import Step
from .collect_recurrence import ORDER, Leaf
from .layout import Packed
from .passes import STATES_ONLY, Call, Pass, Weights
from .recurrence import Recurrence, taken_by
from .staying import State
from .structure import numpy


def leaves(done: Pass, call: Call, recurrence: Recurrence) -> list[LayerRecord]:
    """One leaf, or one for each inner layer of torch's kernels that was asked for."""
    if call.kind == "rnn":
        return [Leaf(done, call, recurrence).record()]
    count = len(recurrence.steps[0].layers)
    if not count:
        return [CellLeaf(done, call, recurrence).record()]
    asked = [entry.inner for entry in done.found if entry.layer is call.entry.layer]
    chosen = [place for place in range(count) if None in asked or place in asked]
    return [FusedLeaf(done, call, recurrence, place).record() for place in chosen]


class KernelLeaf(Leaf):
    """Reads the calls of one of torch's kernels."""

    place: Any = ...  # of this leaf among the layers of a state; a cell is the whole of it
    first, sets = 0, 1  # of all sets of weights, one for each direction, the first that is this leaf's

    def _named(self, number: int, steps: Sequence[Step]) -> Weights:
        """Name the weights of a direction, each with the marks that some calls made of it."""
        given, place = self.steps[-1].weights, self.first + number
        count = len(given) // self.sets
        own = slice(place * count, (place + 1) * count)
        # A parametrization computes a weight anew for each call.
        marks = zip(*(step.marked[own] for step in steps), strict=True)
        return dict(zip(weights.names(count), zip(given[own], marks, strict=True), strict=True))

    def _of_kind(self) -> dict[str, Attribute]:
        return description.of_kind(self.call.entry.layer, self.call.kind, self.call.activation)

    def _past_first(self) -> tuple[Array | None, ...]:
        """dL/d(initial state) of this layer past the first call, of each state."""
        found = map(self.transitions.past_first, range(len(self.states)))
        ordered = self.recurrence.by_sample
        return tuple(None if one is None else numpy(ordered(one[self.place])) for one in found)

    def _own(self) -> tuple[dict[str, Array], dict[str, str]]:
        numbers, every = range(len(self.directions) or 1), self.done.steps_of(self.call)
        pairs = (self.done.weights(self.call.kind, self._named(number, every)) for number in numbers)
        each, unreached = zip(*pairs, strict=True)
        missing = {name: why for one in unreached for name, why in one.items()}
        if len(each) == 1:
            return each[0], missing
        return {name: np.stack([one[name] for one in each]) for name in each[0] if name in each[1]}, missing


class CellLeaf(KernelLeaf):
    """Reads each call as a pass of one step, from the state given to the state handed out."""

    def _of_kind(self) -> dict[str, Attribute]:
        return {**super()._of_kind(), "time": ORDER}

    def _inside(self) -> Iterator[DirectionRecord]:
        of_cell, gradients = self.done.used(self.call.kind, self._named(0, self.steps))
        total = [[step.leaving[0].edge] for step in self.steps]  # dL/dh handed out, of all who take it
        if self.states[1:]:
            self.recurrence.taken = taken_by(self.done.steps_of(self.call))
        yield DirectionRecord(
            weights=of_cell,
            weight_gradients=gradients,
            inputs=self.outside["input"],
            hidden=self.outside["output"],
            output_gradient=self._summed(total, self.outside["output"]),
            input_gradient=self.outside.get("input_gradient"),
            valid=None,
            zero_output=False,
            runs_backward=False,
            initial=tuple(map(self._given, self.states)),
            final_gradients=(None, *map(self._of_others, self.states[1:])),
            initial_gradients=self._past_first(),
            windows=(1,) * len(self.steps),
        )

    def _outputs(self) -> Array:
        return super()._outputs() if self._hidden is None else self._hidden[:, 1:]

    @cached_property
    def _hidden(self) -> Array | None:
        """Read h before the first call and after each, (sample, call + 1, unit); None if h is changed."""
        first = self.steps[0].entering[self.states[0].argument].given
        each = [first, *(step.leaving[0].plain for step in self.steps)]
        is_one = self.transitions.are_handed_on and not self.recurrence.rows
        return self._series(each) if is_one and first.dtype == each[1].dtype else None

    def _given(self, state: State) -> Array:
        """Read the state that each call is given."""
        if state.place == 0 and self._hidden is not None:
            return self._hidden[:, :-1]
        return self._series(step.entering[state.argument].given for step in self.steps)

    def _of_others(self, state: State) -> Array | None:
        """dL/d(state handed out) at each call, beyond what its own call asks of it."""
        uses = [self.recurrence.uses(step.leaving[state.place].plain, step) for step in self.steps]
        return self._summed(uses, self.outside["output"])


class FusedLeaf(KernelLeaf):
    """Reads one inner layer of a kernel; each call is a window of time."""

    def __init__(self, done: Pass, call: Call, recurrence: Recurrence, place: int) -> None:
        super().__init__(done, call, recurrence)
        self.layers = [step.layers[place] for step in self.steps]
        self.layouts = [step.layout for step in self.steps if step.layout is not None]
        self.lengths = tuple(layout.steps for layout in self.layouts) if len(self.steps) > 1 else ()
        self.place, count, both = place, len(self.steps[0].layers), len(self.layers[0].directions)
        self.inner = place if count > 1 else None
        self.first, self.sets = place * both, count * both
        self.directions = ("forward", "backward") if both > 1 else ()
        if weights.PROJECTION in self._named(0, self.steps):
            self.dims = weights.projected_dims(both > 1)

    def _of_kind(self) -> dict[str, Attribute]:
        is_last = self.place == len(self.steps[0].layers) - 1
        return {**super()._of_kind(), "inner_layer": self.place, "is_last": int(is_last)}

    def _outside(self) -> dict[str, Array]:
        """Read everything that enters and leaves the layer, if it was asked for or the inside needs it."""
        wanted, needed, layers = self.done.wanted, self.done.wants_inside, self.layers
        inputs = [layer.input for layer in layers]
        found = {"valid": self._joined([np.ones(tuple(one.shape[:-1]), bool) for one in inputs], inputs)}
        if self.lengths:
            found["valid"] = found["valid"] & ~np.repeat(numpy(self.transitions.held), self.lengths, axis=1)
        if "input" in wanted or needed:
            found["input"] = self._joined([numpy(one, copy=True) for one in inputs], inputs)
        if "output" in wanted or needed:
            found["output"] = self._joined([numpy(layer.output) for layer in layers], inputs)
        marks = {
            "output_gradient": [[layer.output] for layer in self.layers],
            "input_gradient": [[one.input for one in layer.directions] for layer in self.layers],
        }
        found |= {name: self._gradients(each) for name, each in marks.items()}
        self.missing |= {name: UNREACHED for name, one in found.items() if one is None}
        states = (state for layer in self.layers for one in layer.directions for state in one.final)
        is_reached = any(self.done.gradients.tensor(state) is not None for state in states)
        if found["output_gradient"] is None and is_reached:
            self.missing["output_gradient"] = STATES_ONLY
        return {name: one for name, one in found.items() if one is not None}

    def _gradients(self, marks: Sequence[Sequence[torch.Tensor]], *, of_states: bool = False) -> Array | None:
        """Read the gradients of what each window has, from its marks."""
        found = [self.done.gradients.of(*each) for each in marks]
        return self._joined(found, [each[0] for each in marks], of_states=of_states)

    def _joined(
        self, arrays: Sequence[Array | None], like: Sequence[torch.Tensor], *, of_states: bool = False
    ) -> Array | None:
        """Concatenate windows, with 0 where a sample has left or one has no array; None if all have none."""
        known, parts = next((one for one in arrays if one is not None), None), []
        if known is None:
            return None
        for number, (layout, array, tensor) in enumerate(zip(self.layouts, arrays, like, strict=True)):
            filled = np.zeros(tuple(tensor.shape), known.dtype) if array is None else array
            part = layout.in_order(filled) if of_states else layout.by_sample(filled)
            if self.recurrence.rows:
                part = numpy(self.recurrence.whole(torch.from_numpy(part), number))
            parts.append(part)
        if not self.lengths:
            return parts[0]
        return np.stack(parts, 1) if of_states else np.concatenate(parts, 1)

    def _inside(self) -> Iterator[DirectionRecord]:
        output, output_gradient = self.outside["output"], self.outside.get("output_gradient")
        every, packed = [layer.directions for layer in self.layers], isinstance(self.layouts[0], Packed)
        units = output.shape[-1] // len(every[0])
        for number, windows in enumerate(zip(*every, strict=True)):
            own = slice(number * units, (number + 1) * units)
            initial = zip(*(one.initial for one in windows), strict=True)
            final = zip(*(one.final for one in windows), strict=True)
            own_weights, gradients = self.done.used(self.call.kind, self._named(number, self.steps))
            yield DirectionRecord(
                weights=own_weights,
                weight_gradients=gradients,
                inputs=self.outside["input"],
                hidden=output[..., own],
                output_gradient=None if output_gradient is None else output_gradient[..., own],
                input_gradient=self._gradients([[one.input] for one in windows]),
                valid=self.outside["valid"] if packed else None,
                zero_output=packed,
                runs_backward=number == 1,
                initial=tuple(
                    self._joined([numpy(one, copy=True) for one in each], each, of_states=True)
                    for each in initial
                ),
                final_gradients=tuple(
                    self._gradients([[one] for one in each], of_states=True) for each in final
                ),
                windows=self.lengths,
                initial_gradients=self._past_first(),
            )

    def _transitions(self) -> dict[str, Array]:
        """Put what crosses between two calls at the last step of the earlier call, and NaN elsewhere."""

        def rows(states: torch.Tensor, number: int) -> torch.Tensor:
            return self.recurrence.whole(states[self.place], number)

        found = self.transitions.variables(rows)
        valid, ends = self.outside["valid"], np.cumsum(self.lengths)
        reset = np.zeros(valid.shape, bool)
        reset[:, ends[:-1]] = found["reset"][:, 1:]
        reset &= valid
        if not self._shows_carried:
            return {"reset": reset}
        across = found["carried_by_state"]
        carried = np.full((*reset.shape, across.shape[-1]), np.nan, across.dtype)
        carried[:, ends - 1] = across
        norms = np.hypot.reduce(carried, -1)
        return {"reset": reset, "carried_gradient": norms, "carried_by_state": carried}
