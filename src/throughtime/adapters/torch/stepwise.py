"""Follows an nn.RNNCell, LSTMCell or GRUCell through a user's own loop: one call is one step.

Calls belong to one sequence while each gets its state, in the autograd graph, from what an earlier one of
them handed out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

import torch
from torch.autograd.graph import GradientEdge, get_gradient_edge

from .marks import INPUT, OUTPUT, STATE, WEIGHT, Marks
from .structure import ordinary

_VF = torch._VF
KINDS = {
    _VF.lstm_cell: "lstm",
    _VF.gru_cell: "gru",
    _VF.rnn_tanh_cell: "simple_rnn",
    _VF.rnn_relu_cell: "simple_rnn",
}
# What gives a tensor another shape and leaves its values and gradients alone.
_RESHAPES = frozenset(
    {"SqueezeBackward0", "SqueezeBackward1", "UnsqueezeBackward0", "ViewBackward0", "AliasBackward0"}
)


@dataclass(frozen=True)
class HandedOut:
    """A state that a cell returned: before it was marked, its mark, and the copy that the user got."""

    plain: torch.Tensor
    mark: torch.Tensor
    copy: torch.Tensor
    edge: GradientEdge | None  # of the copy when it was made

    @property
    def node(self) -> Any:
        """The node of the copy when it was made."""
        return None if self.edge is None else self.edge.node

    def is_unchanged(self, state: torch.Tensor) -> bool:
        """Whether a state is this very one, at most reshaped."""
        node = state.grad_fn
        while node is not None and node is not self.node and node.name() in _RESHAPES:
            node = node.next_functions[0][0]
        is_same = state.data_ptr() == self.copy.data_ptr() and state.shape == self.plain.shape
        return node is self.node and is_same and self.copy._version == 0


@dataclass(frozen=True)
class Source:
    """Where an incoming state comes from: a state of an earlier call, handed on unchanged or not."""

    step: Step
    place: int
    is_unchanged: bool


@dataclass(eq=False)
class Step:
    """One call of a cell.

    Attributes
    ----------
    input, states : marks of what went in
    given : tuple of tensors
        The states as they were given.
    weights, marked : tuples of tensors
        Input, recurrent, two biases where there are any.
    out : tuple of HandedOut
        h, and c of an LSTM.
    sources : tuple of Source or None
        For each incoming state; None where it comes from elsewhere.
    sequence : int
        Which of the cell's sequences it belongs to.
    """

    input: torch.Tensor
    states: tuple[torch.Tensor, ...]
    given: tuple[torch.Tensor, ...]
    weights: tuple[torch.Tensor, ...]
    marked: tuple[torch.Tensor, ...]
    out: tuple[HandedOut, ...]
    sources: tuple[Source | None, ...]
    sequence: int


@dataclass
class Loop:
    """All calls of one cell during one pass, and the sequences they form.

    Attributes
    ----------
    sequences : list of list of Step
        In the order of their first calls; steps in the order of the calls.
    """

    sequences: list[list[Step]] = field(default_factory=list)
    _known: dict[int, tuple[Step, int]] = field(default_factory=dict)  # by the node of a copy handed out
    _marked: dict[tuple[int, int], tuple[torch.Tensor, Any]] = field(default_factory=dict)

    def run(self, kernel: Callable[..., Any], arguments: tuple[Any, ...], marks: Marks) -> tuple[Any, bool]:
        """Compute what the kernel would, and keep the call.

        Returns
        -------
        tensor or tuple of tensors
            What the kernel returns.
        bool
            The call began a new sequence.
        """
        data, states, *weights = arguments
        given = tuple(map(ordinary, states if isinstance(states, (tuple, list)) else (states,)))
        sources = tuple(self._source(state) for state in given)
        place = self._place(data, given, sources)
        known = tuple(weight for weight in weights if weight is not None)
        marked = tuple(self._mark_of(weight, place, marks) for weight in known)
        entering = marks(INPUT, ordinary(data))
        before = tuple(marks(STATE, plain) for plain in map(_plain, given, sources))
        results = kernel(entering, before if len(before) > 1 else before[0], *marked)
        results = results if isinstance(results, tuple) else (results,)
        out = tuple(_handed_out(state, marks) for state in results)
        self.sequences[place].append(Step(entering, before, given, known, marked, out, sources, place))
        self._known.update({id(one.node): (self.sequences[place][-1], k) for k, one in enumerate(out)})
        copies = tuple(one.copy for one in out)
        return copies if len(copies) > 1 else copies[0], len(self.sequences[place]) == 1

    def _place(
        self, data: torch.Tensor, states: Iterable[torch.Tensor], sources: Iterable[Source | None]
    ) -> int:
        """Find the sequence that a call continues, one of equal batches; else begin one."""
        shapes = [data.shape, *(state.shape for state in states)]
        for source in sources:
            if source is not None and shapes == _shapes(source.step):
                return source.step.sequence
        self.sequences.append([])
        return len(self.sequences) - 1

    def _mark_of(self, weight: torch.Tensor, place: int, marks: Marks) -> torch.Tensor:
        """Mark a weight once for a sequence: a mark a call would cost a gradient a call."""
        kept = self._marked.setdefault((place, id(weight)), (weight, None))
        if kept[1] is None:
            kept = self._marked[place, id(weight)] = weight, marks(WEIGHT, weight)
        return kept[1]

    def _source(self, state: torch.Tensor) -> Source | None:
        """Find the latest call from whose states this one is made."""
        if not self._known or state.grad_fn is None:
            return None
        first = next(iter(self._known.values()))[0]
        for node in _history(state.grad_fn, first.out[0].node._sequence_nr()):
            if id(node) in self._known:
                step, place = self._known[id(node)]
                return Source(step, place, step.out[place].is_unchanged(state))
        return None


def _handed_out(state: torch.Tensor, marks: Marks) -> HandedOut:
    mark = marks(OUTPUT, state)
    copy = mark.clone()
    return HandedOut(state, mark, copy, get_gradient_edge(copy) if copy.grad_fn is not None else None)


def _history(node: Any, oldest: int) -> Iterator[Any]:
    """Walk the graph from a node to what it was made from, latest first and no further back than asked.

    Nodes are numbered as they are made, so that nothing made before the first call is looked at.
    """
    waiting: list[tuple[int, int, Any]] = [(-node._sequence_nr(), 0, node)]
    seen = {id(node): node}  # kept: a node that is let go of could lend its id to another
    while waiting:
        *_, latest = heappop(waiting)
        yield latest
        for before, _ in latest.next_functions:
            if before is not None and id(before) not in seen and before._sequence_nr() >= oldest:
                seen[id(before)] = before
                heappush(waiting, (-before._sequence_nr(), len(seen), before))


def _plain(state: torch.Tensor, source: Source | None) -> torch.Tensor:
    """Take a state handed on untouched from before its mark: the mark keeps what all others ask of it."""
    return source.step.out[source.place].plain if source is not None and source.is_unchanged else state


def _shapes(step: Step) -> list[torch.Size]:
    return [step.input.shape, *(state.shape for state in step.states)]
