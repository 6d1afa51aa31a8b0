"""Follows torch's recurrent layers and cells through a loop, each call from the states of an earlier one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from . import recurrence
from .calls import Calls, Step
from .fused import Arguments, InnerLayer, Mark, run
from .layout import Dense
from .marks import WEIGHT, Marks
from .structure import ordinary

_VF = torch._VF
CELLS = {
    _VF.lstm_cell: "lstm",
    _VF.gru_cell: "gru",
    _VF.rnn_tanh_cell: "simple_rnn",
    _VF.rnn_relu_cell: "simple_rnn",
}


def _sharing(marks: Marks) -> Mark:
    """Mark a weight once for several calls: a mark a call would cost a gradient a call."""
    known: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def mark(kind: str, tensor: torch.Tensor) -> torch.Tensor:
        if kind != WEIGHT or id(tensor) not in known:
            known[id(tensor)] = tensor, marks(kind, tensor)
        return known[id(tensor)][1]

    return mark


@dataclass
class Windows:
    """All calls of one layer or cell during a pass; `calls` has the states given and handed out."""

    calls: Calls = field(default_factory=lambda: Calls(("states",)))
    _last: dict[int, tuple[Mark, Any]] = field(default_factory=dict)  # sequences by their last call

    def run(
        self, asked: Arguments, marks: Marks
    ) -> tuple[tuple[InnerLayer, ...], tuple[torch.Tensor, ...], Step, Any]:
        """Compute what the kernel would.

        Returns what `fused.run` does, the states that entered and left, and what was `noted` of the first
        call of the sequence that this one continues.
        """
        step = Step(len(self.calls.steps))
        entering = self._enter(step, asked.states)
        can_go_on = isinstance(asked.layout, Dense) and not asked.is_bidirectional
        shared, first = self._continued(step, self._source(step, by_values=True) if can_go_on else -1, marks)
        layers, (output, *states) = run(replace(asked, states=entering), shared)
        return layers, (output, *self.calls.hand_out(step, states)), step, first

    def step(
        self, kernel: Callable[..., Any], arguments: tuple[Any, ...], marks: Marks
    ) -> tuple[Any, Step, Any]:
        """Compute what the kernel of a cell would; returns that, and the last two of what `run` returns."""
        data, states, *weights = arguments
        step = Step(len(self.calls.steps))
        before = self._enter(step, states if isinstance(states, (tuple, list)) else (states,))
        shared, first = self._continued(step, self._source(step, by_values=False), marks)
        step.weights = tuple(weight for weight in weights if weight is not None)
        step.marked = tuple(shared(WEIGHT, weight) for weight in step.weights)
        entering = self.calls.enter(step, ("input",), ordinary(data))
        results = kernel(entering, before if len(before) > 1 else before[0], *step.marked)
        out = self.calls.hand_out(step, results if isinstance(results, tuple) else (results,))
        return tuple(out) if len(out) > 1 else out[0], step, first

    def _enter(self, step: Step, states: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        pairs = enumerate(map(ordinary, states))
        return tuple(self.calls.enter(step, ("states", str(place)), one) for place, one in pairs)

    def _continued(self, step: Step, source: int, marks: Marks) -> tuple[Mark, Any]:
        self._last[step.order] = self._last.pop(source, (_sharing(marks), None))
        return self._last[step.order]

    def begin(self, step: Step, noted: Any) -> None:
        """Keep what the calls that continue from this one are handed."""
        self._last[step.order] = self._last[step.order][0], noted

    def _source(self, step: Step, *, by_values: bool) -> int:
        """Find the call whose states this one starts from; -1 where it starts anew."""
        if not self.calls.steps:
            return -1
        places = [self.calls.place_of(one.given) for one in step.entering.values()]
        sources = {-1 if place is None else place[0] for place in places}
        if len(sources) > 1 or -1 in sources:
            links = recurrence.links_of(self.calls, step, (), by_values=by_values)
            sources = {link.source for link in links}
        source = max(sources, default=-1)
        if source not in self._last:
            return -1
        left = [one.plain.shape for one in self.calls.steps[source].leaving.values()]
        return source if left == [one.shape for one in step.entering.values()] else -1
