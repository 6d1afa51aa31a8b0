"""Collects a sequence of calls of an nn.RNNCell, LSTMCell or GRUCell: a recurrence whose gates are known."""

from __future__ import annotations

from throughtime.adapters.records import Array, Attribute, DirectionRecord

from . import collect_recurrence, settings
from .finished import Call, Pass
from .recurrence import Recurrence, State, taken_by
from .structure import name_of

_TIME = "the order of the cell's calls"


class Leaf(collect_recurrence.Leaf):
    """Reads each call as a pass of one step, from the state given to the state handed out."""

    def __init__(self, done: Pass, call: Call, recurrence: Recurrence) -> None:
        super().__init__(done, call, recurrence)
        self._every = [
            step for one in done.calls_of(call) if one.recurrence is not None for step in one.recurrence.steps
        ]
        recurrence.taken = taken_by(self._every)

    def _flags(self) -> dict[str, Attribute]:
        dtype = self.call.autocast or name_of(self.steps[0].leaving[0].plain.dtype)
        own: dict[str, Attribute] = {"time": _TIME, "states_changed": int(self._changes), "dtype": dtype}
        return {**settings.of_recurrent(self.call, self.done.frozen), **own}

    def _own(self) -> tuple[dict[str, Array], dict[str, str]]:
        marks = list(zip(*(step.marked for step in self._every), strict=True))
        return self.done.weights(self.call.kind, self.steps[-1].weights, marks)

    def _inside(self) -> DirectionRecord:
        hidden, *cell = map(self._total, self.states)
        # A parametrization computes a weight anew for each call; else all calls share its mark.
        marks = zip(*(step.marked for step in self.steps), strict=True)
        of_cell, gradients = self.done.used(self.call.kind, self.steps[-1].weights, marks)
        given = ([step.entering[state.argument].given for step in self.steps] for state in self.states)
        return DirectionRecord(
            weights=of_cell,
            weight_gradients=gradients,
            inputs=self.outside["input"],
            hidden=self.outside["output"],
            output_gradient=hidden,
            input_gradient=self.outside.get("input_gradient"),
            valid=None,
            zero_output=False,
            runs_backward=False,
            initial=tuple(map(self._series, given)),
            final_gradients=(None, *cell),
            windows=(1,) * len(self.steps),
        )

    def _total(self, state: State) -> Array | None:
        """dL/d(state handed out) at each call: what others ask of it, and what later calls do."""
        uses = [self.recurrence.uses(step.leaving[state.place].plain, step) for step in self.steps]
        return self._summed(uses, self.outside["output"])
