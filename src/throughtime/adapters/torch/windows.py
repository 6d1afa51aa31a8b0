"""Follows an nn.RNN, LSTM or GRU that is called window by window, each from the states of an earlier one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch

from . import recurrence
from .calls import Calls, Entering, Key, Step
from .fused import Arguments, InnerLayer, run
from .layout import Dense
from .marks import STATE, WEIGHT, Marks


class SharedMarks:
    """Marks a weight once for several calls: a mark a call would cost a gradient a call."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._known: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(self, kind: str, tensor: torch.Tensor) -> torch.Tensor:
        """Mark a tensor, see `Marks`."""
        if kind != WEIGHT:
            return self._marks(kind, tensor)
        if id(tensor) not in self._known:
            self._known[id(tensor)] = tensor, self._marks(kind, tensor)
        return self._known[id(tensor)][1]


@dataclass
class Windows:
    """All calls of one layer during a pass.

    Attributes
    ----------
    calls : Calls
        The states that each is given and hands out, by place.
    """

    calls: Calls = field(default_factory=lambda: Calls(("states",)))
    _last: dict[int, tuple[SharedMarks, Any]] = field(default_factory=dict)  # sequences by their last call

    def run(
        self, asked: Arguments, marks: Marks
    ) -> tuple[tuple[InnerLayer, ...], tuple[torch.Tensor, ...], Step, Any]:
        """Compute what the kernel would.

        Returns
        -------
        tuple of InnerLayer, tuple of tensors
            As `fused.run` returns them.
        Step
            The states that entered and left.
        object or None
            What was `noted` of the first call of the sequence that this one continues.
        """
        number = len(self.calls.steps)
        keys: list[Key] = [("states", str(place)) for place in range(len(asked.states))]
        given = {key: Entering(one, None, None) for key, one in zip(keys, asked.states, strict=True)}
        step = Step(number, given, {})
        source = self._source(asked, step)
        shared, first = self._last.pop(source, (SharedMarks(marks), None))
        entering = tuple(shared(STATE, state) for state in asked.states)
        layers, (output, *states) = run(replace(asked, states=entering), shared)
        for one, mark in zip(given.values(), entering, strict=True):
            known = self.calls.handed_out.get(one.given.grad_fn)
            one.mark = mark
            one.taken = None if known is None or known[0] != source else one.given
        copies = self.calls.hand_out(step, states)
        self._last[number] = shared, first
        return layers, (output, *copies), step, first

    def begin(self, step: Step, noted: Any) -> None:
        """Keep what the calls that continue from this one are handed."""
        self._last[step.order] = self._last[step.order][0], noted

    def _source(self, asked: Arguments, step: Step) -> int:
        """Find the call whose states this one starts from; -1 where it starts anew."""
        is_dense = isinstance(asked.layout, Dense) and not asked.is_bidirectional
        if not (is_dense and self.calls.steps and len(asked.weights) % 2 == 0):
            return -1
        links = recurrence.links_of(self.calls, step, ())
        source = max((link.source for link in links), default=-1)
        if source not in self._last:
            return -1
        left = [one.plain.shape for one in self.calls.steps[source].leaving.values()]
        return source if left == [one.shape for one in step.entering.values()] else -1
