"""Runs an nn.RNN, LSTM or GRU one inner layer and one direction at a time, each by torch's own fused kernel.

What passes between them, which the kernel of a whole stack keeps to itself, can be marked there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from .layout import Dense, Layout, Packed
from .marks import INPUT, OUTPUT, STATE, WEIGHT
from .structure import ordinary

_VF = torch._VF
Mark = Callable[[str, torch.Tensor], torch.Tensor]
KINDS = {_VF.lstm: "lstm", _VF.gru: "gru", _VF.rnn_tanh: "simple_rnn", _VF.rnn_relu: "simple_rnn"}


@dataclass(frozen=True)
class Direction:
    """One direction of one inner layer: marks, and the tensors they are made of.

    `input` marks what the layer reads, in input time. Weights stand as torch orders them: input, recurrent,
    two biases or none, projection or none. States are (sample, unit) in the packed order, the final ones
    marked.
    """

    runs_backward: bool
    input: torch.Tensor
    weights: tuple[torch.Tensor, ...]
    marked: tuple[torch.Tensor, ...]
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
    """What torch hands to a fused kernel."""

    kernel: Callable[..., Any]
    data: torch.Tensor
    layout: Layout
    batch_first: bool
    states: tuple[torch.Tensor, ...]
    weights: Sequence[torch.Tensor]
    has_biases: bool
    count: int
    dropout: float
    training: bool
    is_bidirectional: bool

    @property
    def directions(self) -> int:
        """One or two."""
        return 2 if self.is_bidirectional else 1

    def weights_of(self, layer: int, direction: int) -> tuple[torch.Tensor, ...]:
        """Take the weights of one direction of one inner layer."""
        each = len(self.weights) // (self.count * self.directions)
        start = (layer * self.directions + direction) * each
        return tuple(self.weights[start : start + each])

    def states_of(self, layer: int, direction: int) -> tuple[torch.Tensor, ...]:
        """Take the initial states of one direction of one inner layer, (1, sample, unit)."""
        place = layer * self.directions + direction
        return tuple(state[place : place + 1] for state in self.states)


def read(kernel: Callable[..., Any], arguments: tuple[Any, ...], order: torch.Tensor | None) -> Arguments:
    """Read the positional arguments of a kernel, dense or packed."""
    if isinstance(arguments[3], bool):
        data, states, *others, batch_first = arguments
        data = data.transpose(0, 1) if batch_first else data
        layout: Layout = Dense(samples=data.shape[1], steps=data.shape[0])
    else:
        data, sizes, states, *others = arguments
        layout, batch_first = Packed(sizes, order), False
    states = tuple(states) if isinstance(states, (tuple, list)) else (states,)
    states = tuple(ordinary(state) for state in states)
    return Arguments(kernel, ordinary(data), layout, batch_first, states, *others)


def run(asked: Arguments, marks: Mark) -> tuple[tuple[InnerLayer, ...], tuple[torch.Tensor, ...]]:
    """Compute what the kernel would.

    Returns what was seen on the way, and what the kernel returns: the output, and the final states of every
    layer and direction.
    """
    layers: list[InnerLayer] = []
    value = asked.data
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


def _layer(asked: Arguments, place: int, value: torch.Tensor, marks: Mark) -> InnerLayer:
    directions, outputs = [], []
    for number in range(asked.directions):
        direction, output = _direction(asked, place, number, value, marks)
        directions.append(direction)
        outputs.append(output)
    joined = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
    return InnerLayer(value, marks(OUTPUT, joined), tuple(directions))


def _direction(
    asked: Arguments, place: int, number: int, value: torch.Tensor, marks: Mark
) -> tuple[Direction, torch.Tensor]:
    backward = number == 1
    entering = marks(INPUT, value)
    weights = asked.weights_of(place, number)
    marked = tuple(marks(WEIGHT, weight) for weight in weights)
    initial = asked.states_of(place, number)
    data = asked.layout.reversed(entering) if backward else entering
    output, *states = _kernel(asked, data, initial, marked)
    final = tuple(marks(STATE, state[0]) for state in states)
    direction = Direction(backward, entering, weights, marked, tuple(state[0] for state in initial), final)
    return direction, asked.layout.reversed(output) if backward else output


def _kernel(
    asked: Arguments, data: torch.Tensor, initial: tuple[torch.Tensor, ...], weights: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    """Call the fused kernel for one layer in one direction.

    It is always told to train, without dropout: cuDNN refuses to differentiate what it ran otherwise.
    """
    states = initial if len(initial) > 1 else initial[0]
    settings = (asked.has_biases, 1, 0.0, True, False)
    with warnings.catch_warnings():
        # cuDNN copies the weights of one layer together, and says so each time.
        warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk")
        if isinstance(asked.layout, Packed):
            result = asked.kernel(data, asked.layout.batch_sizes, states, list(weights), *settings)
        else:
            result = asked.kernel(data, states, list(weights), *settings, False)
    return tuple(result)
