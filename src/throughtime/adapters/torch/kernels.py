"""Runs torch's recurrent kernels with marks: a layer part by part, or through a loop of calls."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from operator import is_
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from . import recurrence
from .calls import Calls, Function, Step
from .layout import Dense, Layout, Packed
from .marks import INPUT, OUTPUT, STATE, WEIGHT, Marks
from .recurrence import Recurrence, states_of_kernel
from .staying import State, why_it_ends
from .structure import Key, ordinary

_VF = torch._VF
Mark = Callable[[torch.Tensor], torch.Tensor]
Open = tuple[int, Recurrence, Mark]  # the call that it continues, its sequence, marks of weights
_FUSED = frozenset({_VF.lstm, _VF.gru, _VF.rnn_tanh, _VF.rnn_relu})
KINDS = {  # each with the activation of its candidate
    **dict.fromkeys((_VF.lstm, _VF.lstm_cell), ("lstm", "tanh")),
    **dict.fromkeys((_VF.gru, _VF.gru_cell), ("gru", "tanh")),
    **dict.fromkeys((_VF.rnn_tanh, _VF.rnn_tanh_cell), ("simple_rnn", "tanh")),
    **dict.fromkeys((_VF.rnn_relu, _VF.rnn_relu_cell), ("simple_rnn", "relu")),
}
WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")  # of a cell
_LSTM_CELL = _VF.lstm_cell  # found anew at each use of the name
_OF_FORWARDS: dict[object, Mapping[str, Function]] = {  # by the activation where there are several
    nn.LSTMCell.forward: {"": _LSTM_CELL},
    nn.GRUCell.forward: {"": _VF.gru_cell},
    nn.RNNCell.forward: {"tanh": _VF.rnn_tanh_cell, "relu": _VF.rnn_relu_cell},
}


@dataclass(frozen=True)
class Direction:
    """One direction of one inner layer.

    `input` marks what the layer reads, in input time. States are (sample, unit) in the packed order, the
    final ones marked.
    """

    input: torch.Tensor
    initial: tuple[torch.Tensor, ...]
    final: tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class InnerLayer:
    """One inner layer: what it reads, the mark of what it returns, directions side by side."""

    input: torch.Tensor
    output: torch.Tensor
    directions: tuple[Direction, ...]


@dataclass(frozen=True)
class Arguments:
    """The arguments of a fused kernel of torch."""

    kernel: Function
    data: torch.Tensor
    layout: Layout
    batch_first: bool
    directions: int
    states: tuple[torch.Tensor, ...]
    weights: Sequence[torch.Tensor]
    has_biases: bool
    count: int
    dropout: float
    training: bool

    def of(self, layer: int, direction: int) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """Take the weights of one direction of one inner layer, and its initial states (1, sample, unit)."""
        each, place = len(self.weights) // (self.count * self.directions), layer * self.directions + direction
        states = tuple(state[place : place + 1] for state in self.states)
        return tuple(self.weights[place * each : (place + 1) * each]), states


def read(kernel: Function, arguments: tuple[Any, ...], order: torch.Tensor | None) -> Arguments:
    """Read the positional arguments of a kernel, dense or packed."""
    if isinstance(arguments[3], bool):
        data, states, *others, batch_first = arguments
        data = data.transpose(0, 1) if batch_first else data
        layout: Layout = Dense(samples=data.shape[1], steps=data.shape[0])
    else:
        data, sizes, states, *others = arguments
        layout, batch_first = Packed(sizes, order), False
    states = tuple(states) if isinstance(states, (tuple, list)) else (states,)
    *others, is_bidirectional = others
    return Arguments(kernel, ordinary(data), layout, batch_first, 1 + is_bidirectional, states, *others)


def of_cell(module: nn.Module, forward: Function) -> Function | None:
    """Find the kernel to which the forward of one of torch's cells passes a batch and its states."""
    kernels = _OF_FORWARDS.get(getattr(forward, "__func__", None), {})
    return kernels.get(getattr(module, "nonlinearity", ""))


def is_batch(kernel: Function, data: object, states: object) -> bool:
    """Whether the kernel of a cell takes these arguments as they are: a batch, and its states."""
    tensors = (data, *states) if kernel is _LSTM_CELL and isinstance(states, tuple) else (data, states)
    return all(getattr(one, "ndim", 0) == 2 for one in tensors)


class Taken(TorchFunctionMode):
    """Takes over each kernel that is called within the context: `run` (kernel, arguments) replaces it."""

    def __init__(self, run: Function) -> None:
        super().__init__()
        self._run = run

    def __torch_function__(self, func: Function, types: object, args: Any = (), kwargs: Any = None) -> Any:
        return self._run(func, args) if func in KINDS else func(*args, **(kwargs or {}))


def run(asked: Arguments, marks: Marks) -> tuple[tuple[InnerLayer, ...], tuple[torch.Tensor, ...]]:
    """Compute what the kernel would; returns the layers as they were seen, and what the kernel returns."""
    layers: list[InnerLayer] = []
    value = asked.data
    with warnings.catch_warnings():
        # cuDNN copies the weights of one layer together, and warns each time.
        warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk")
        for place in range(asked.count):
            if place and asked.training and asked.dropout:
                value = functional.dropout(value, asked.dropout, training=True)
            layers.append(_layer(asked, place, value, marks))
            value = layers[-1].output
    # The model gets copies: it may write on them.
    output = value.transpose(0, 1) if asked.batch_first else value
    output = output.clone(memory_format=torch.contiguous_format)
    final = [direction.final for layer in layers for direction in layer.directions]
    states = [torch.stack(each) for each in zip(*final, strict=True)]
    return tuple(layers), (output, *states)


def _layer(asked: Arguments, place: int, value: torch.Tensor, marks: Marks) -> InnerLayer:
    each = [_direction(asked, place, number, value, marks) for number in range(asked.directions)]
    directions, outputs = zip(*each, strict=True)
    joined = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
    return InnerLayer(value, marks(OUTPUT, joined), directions)


def _direction(
    asked: Arguments, place: int, number: int, value: torch.Tensor, marks: Marks
) -> tuple[Direction, torch.Tensor]:
    backward = number == 1
    entering = marks(INPUT, value)
    weights, initial = asked.of(place, number)
    data = asked.layout.reversed(entering) if backward else entering
    output, *states = _kernel(asked, data, initial, weights)
    final = tuple(marks(STATE, state[0]) for state in states)
    direction = Direction(entering, tuple(state[0] for state in initial), final)
    return direction, asked.layout.reversed(output) if backward else output


def _kernel(
    asked: Arguments, data: torch.Tensor, initial: tuple[torch.Tensor, ...], weights: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    """Call the fused kernel for one layer in one direction; cuDNN differentiates only what trains."""
    states = initial if len(initial) > 1 else initial[0]
    settings = (asked.has_biases, 1, 0.0, True, False)
    if isinstance(asked.layout, Packed):
        result = asked.kernel(data, asked.layout.batch_sizes, states, list(weights), *settings)
    else:
        result = asked.kernel(data, states, list(weights), *settings, False)
    return tuple(result)


_INPUT = ("input",)


@cache
def _keys(count: int) -> tuple[Key, ...]:
    return tuple(("states", str(place)) for place in range(count))


@dataclass
class Windows(Calls):
    """All calls of one layer or cell during a pass, each with the states that it was given and handed out."""

    # Sequences, and how weights are marked in them, by the latest call.
    _last: dict[int, tuple[Recurrence, Mark]] = field(default_factory=dict)

    def call(
        self, kernel: Function, arguments: tuple[Any, ...], order: torch.Tensor | None, marks: Marks
    ) -> tuple[Any, Recurrence]:
        """Compute what a kernel would; returns that, and the sequence whose latest call this is."""
        if kernel in _FUSED:
            return self._fused(read(kernel, arguments, order), marks)
        data, states, *weights = arguments
        states = states if isinstance(states, (tuple, list)) else (states,)
        weights = [weight for weight in weights if weight is not None]
        step, before, sequence = self._next(states, weights, marks, can_go_on=True, is_fused=False)
        entering = self.read(step, _INPUT, data)
        if len(before) > 1:
            out: Any = tuple(self.hand_out(step, kernel(entering, before, *step.marked)))
        else:
            (out,) = self.hand_out(step, (kernel(entering, before[0], *step.marked),))
        return out, self._go_on(step, sequence)

    def _fused(self, asked: Arguments, marks: Marks) -> tuple[tuple[torch.Tensor, ...], Recurrence]:
        can_go_on = isinstance(asked.layout, Dense) and asked.directions == 1
        step, before, sequence = self._next(
            asked.states, asked.weights, marks, can_go_on=can_go_on, is_fused=True
        )
        step.layout = asked.layout
        step.layers, (output, *states) = run(replace(asked, states=before, weights=step.marked), marks)
        return (output, *self.hand_out(step, states)), self._go_on(step, sequence)

    def _go_on(self, step: Step, sequence: Open) -> Recurrence:
        """Add a call to its sequence, once the kernel has not raised."""
        source, loop, mark = sequence
        self._last.pop(source, None)
        self._last[step.order] = loop, mark
        loop.steps.append(step)
        return loop

    def _next(
        self,
        states: Sequence[torch.Tensor],
        weights: Sequence[torch.Tensor],
        marks: Marks,
        *,
        can_go_on: bool,
        is_fused: bool,
    ) -> tuple[Step, tuple[torch.Tensor, ...], Open]:
        """Begin a call: its step, the states that it reads, and its sequence."""
        step, latest = Step(len(self.steps)), self.steps[-1] if self.steps else None
        is_next = can_go_on and latest is not None and latest.has_handed_out(states)
        if latest is not None and is_next:  # the usual call: no search for where its states come from
            pairs = zip(_keys(len(states)), states, latest.leaving.values(), strict=True)
            entering = tuple(step.take(key, given, one.plain, latest.order) for key, given, one in pairs)
            source = latest.order
        else:
            each = zip(_keys(len(states)), map(ordinary, states), strict=True)
            entering = tuple(self.enter(step, *pair) for pair in each)
        known = states_of_kernel(len(entering), axis=int(is_fused))
        if not is_next:
            source = self._source(step, known) if can_go_on else -1
        if source >= 0:
            loop, mark = self._last[source]
        else:  # samples that leave are as padding of a packed sequence; a weight is marked once for all calls
            loop, mark = Recurrence([], known, blank=0.0), cache(partial(marks, WEIGHT))
        step.weights = tuple(weights)
        before = loop.steps[-1] if loop.steps else step
        is_same = len(before.marked) == len(weights) and all(map(is_, weights, before.weights))
        step.marked = before.marked if is_same else tuple(map(mark, weights))
        return step, entering, (source, loop, mark)

    def _source(self, step: Step, states: Sequence[State]) -> int:
        """Find the call whose states this one starts from; -1 where it starts anew."""
        if not self.steps:
            return -1
        sources = {one.source for one in step.entering.values()}
        if len(sources) > 1 or -1 in sources:
            links = recurrence.links_of(self, step, (), step.order)
            sources = {link.source for link in links}
        source = max(sources, default=-1)
        if source not in self._last or why_it_ends(self.steps[source], step, states):
            return -1
        return source
