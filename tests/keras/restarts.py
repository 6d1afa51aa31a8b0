"""Gradients through time by restarting a layer: plain Keras and autodiff, no code of the library.

What is left to do after step t depends on the past through the state s_t alone. So dL/ds_t is the gradient
of the rest of the loss with respect to the initial state of the same layer, started again at step t + 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from tests.keras.plain_gradients import BACKEND, gradients, same_draws

Arrays = list[np.ndarray]
# Which state a cell hands out, where it is not the first.
_HANDED_OUT = {"TwoStateCell": None, "NamedStatesCell": 1}


@dataclass(frozen=True)
class Direction:
    """One direction of a recurrent layer on one batch, and what the loss asks of all that it returns.

    Arrays are in input time: `output_gradient` (sample, time, …) is zero where nothing is returned.
    """

    layer: Any
    x: np.ndarray
    output_gradient: np.ndarray
    final_gradients: Arrays
    mask: np.ndarray | None = None
    initial: Arrays | None = None
    training: bool = False

    @property
    def steps(self) -> int:
        return int(self.x.shape[1])

    @property
    def cells(self) -> list[Any]:
        return list(getattr(self.layer.cell, "cells", [self.layer.cell]))

    @property
    def first(self) -> list[int]:
        """Position of each cell's first state among all, and at the end their number."""
        counts = [_count(cell) for cell in self.cells]
        return [sum(counts[:place]) for place in range(len(counts) + 1)]

    def own(self, place: int) -> slice:
        """Positions of one cell's states among all."""
        return slice(*self.first[place : place + 2])

    def handed_out(self, place: int) -> int | None:
        """Position of the state that a cell hands out; None where it hands out something else."""
        state = _HANDED_OUT.get(type(self.cells[place]).__name__, 0)
        return None if state is None else self.first[place] + state

    @property
    def valid(self) -> np.ndarray:
        return np.ones(self.x.shape[:2], bool) if self.mask is None else self.mask

    @property
    def repeats(self) -> bool:
        """Whether a masked step hands out what the step before it did."""
        return self.mask is not None and not self.layer.zero_output_for_mask

    def until(self, t: int) -> slice:
        """Input steps up to the t-th that is processed."""
        return slice(self.steps - 1 - t, None) if self.layer.go_backwards else slice(None, t + 1)

    def after(self, t: int) -> slice:
        return slice(None, self.steps - 1 - t) if self.layer.go_backwards else slice(t + 1, None)

    def at(self, t: int) -> int:
        return self.steps - 1 - t if self.layer.go_backwards else t


def start(direction: Direction) -> list[Any]:
    if direction.initial is not None:
        return [ops.convert_to_tensor(state) for state in direction.initial]
    return keras.tree.flatten(direction.layer.get_initial_state(batch_size=len(direction.x)))


def run(direction: Direction, part: slice, states: list[Any], tap: Any = 0.0) -> tuple[Any, list[Any]]:
    """Outputs of every step of a part of the input, in processing order, and the states after it."""
    layer = direction.layer
    nested = keras.tree.pack_sequence_as(layer.get_initial_state(batch_size=len(direction.x)), states)
    mask = None if direction.mask is None else ops.convert_to_tensor(direction.mask[:, part])
    settings = layer.return_sequences, layer.return_state
    layer.return_sequences = layer.return_state = True
    try:
        x = ops.convert_to_tensor(direction.x[:, part]) + tap
        with same_draws():
            output, *final = layer(x, initial_state=nested, mask=mask, training=direction.training)
    finally:
        layer.return_sequences, layer.return_state = settings
    return output, keras.tree.flatten(final)


def rest(direction: Direction, t: int, states: list[Any], tap: Any = 0.0) -> Any:
    """What the steps after t and the final states add to the loss."""
    final, total = states, 0.0
    if t + 1 < direction.steps:
        output, final = run(direction, direction.after(t), states, tap)
        total = ops.sum(output * ops.convert_to_tensor(_asked_after(direction, t)))
    for state, gradient in zip(final, direction.final_gradients, strict=True):
        total = total + ops.sum(state * ops.convert_to_tensor(gradient))
    return total


def _asked_after(direction: Direction, t: int) -> np.ndarray:
    """dL/d(output) of the steps after t, in processing order."""
    asked = direction.output_gradient[:, direction.after(t)]
    valid = direction.valid[:, direction.after(t)]
    if direction.layer.go_backwards:
        asked, valid = asked[:, ::-1], valid[:, ::-1]
    if t >= 0 and _repeats_the_output(direction):
        # Masked steps right after t repeat an output from before the restart: see `_asked_at`.
        asked = asked * _by_sample(np.cumsum(valid, axis=1) > 0, asked)
    return np.ascontiguousarray(asked)


def _repeats_the_output(direction: Direction) -> bool:
    # Keras on JAX repeats the first state instead, whatever the cell hands out.
    last = len(direction.cells) - 1
    return direction.repeats and (BACKEND != "jax" or direction.handed_out(last) == direction.first[last])


def _asked_at(direction: Direction, t: int) -> np.ndarray:
    """dL/d(output) of step t and of the masked steps right after it that repeat its output."""
    order = [direction.at(step) for step in range(t, direction.steps)]
    valid = direction.valid[:, order]
    asked = direction.output_gradient[:, order]
    repeated = np.cumsum(valid, axis=1) == 1
    if not _repeats_the_output(direction):
        repeated[:, 1:] = False
    return np.sum(asked * _by_sample(repeated & valid[:, :1], asked), axis=1)


def _by_sample(flags: np.ndarray, array: np.ndarray) -> np.ndarray:
    return flags.reshape(*flags.shape, *(1,) * (array.ndim - flags.ndim)).astype(array.dtype)


def loss_after(direction: Direction, t: int, place: int, before: list[Any], tapped: list[Any]) -> Any:
    """What the loss makes of the states `tapped` that the cell at `place` has after step t.

    Parameters
    ----------
    before : states of all cells before step t, which the cells above start from
    tapped : states of all cells after step t; those above `place` are computed again
    """
    valid = ops.convert_to_tensor(direction.valid[:, direction.at(t)])
    last, states = len(direction.cells) - 1, list(tapped)
    position = direction.handed_out(place)
    while place < last and position is not None:
        handed_out, place = states[position], place + 1
        _, new = direction.cells[place](handed_out, before[direction.own(place)])
        states[direction.own(place)] = [
            _held(valid, *each)
            for each in zip(keras.tree.flatten(new), before[direction.own(place)], strict=True)
        ]
        position = direction.handed_out(place)
    total = rest(direction, t, states)
    if position is not None:
        total = total + ops.sum(states[position] * ops.convert_to_tensor(_asked_at(direction, t)))
    return total


def _count(cell: Any) -> int:
    return 2 if is_lstm(cell) else len(keras.tree.flatten(cell.state_size))


def is_lstm(cell: Any) -> bool:
    """Whether the library counts h_t as following c_t."""
    return type(cell).__name__ in ("LSTMCell", "ConvLSTMCell")


def _held(valid: Any, new: Any, old: Any) -> Any:
    return ops.where(ops.reshape(valid, (-1, *(1,) * (len(new.shape) - 1))), new, old)


def moved(direction: Direction, t: int, place: int, after: list[Any], taps: list[Any]) -> list[Any]:
    """All states after step t, those of one cell moved by taps; an LSTM's h_t follows its c_t."""
    first, cell = direction.first[place], direction.cells[place]
    states = list(after)
    for k, tap in enumerate(taps):
        states[first + k] = after[first + k] + tap
    if is_lstm(cell):
        h, c = after[first : first + 2]
        valid = ops.convert_to_tensor(direction.valid[:, direction.at(t)])
        before, now = cell.activation(c), cell.activation(states[first + 1])
        gate = h / ops.where(ops.equal(before, 0), ops.ones_like(before), before)
        following = gate * (now - before)
        states[first] = states[first] + _held(valid, following, ops.zeros_like(h))
    return states


def trajectory(direction: Direction) -> list[list[Any]]:
    """States before the first step and after each, by running the layer up to there."""
    states = [start(direction)]
    for t in range(direction.steps):
        final = run(direction, direction.until(t), states[0])[1]
        states.append([ops.stop_gradient(state) for state in final])
    return states


@dataclass(frozen=True)
class Found:
    """By cell and state: values and gradients (sample, time, …) in input time, gradients before step 0."""

    states: list[Arrays]
    gradients: list[Arrays]
    initial_gradients: list[Arrays]
    input_gradient: np.ndarray


def total_gradients(direction: Direction) -> Found:
    """Differentiate the loss with respect to every state of every cell after every step."""
    zeros = [np.zeros(state.shape, direction.x.dtype) for state in start(direction)]
    places = range(len(direction.cells))
    taps = {
        "input": np.zeros_like(direction.x),
        "initial": zeros,
        "states": [[zeros[direction.own(place)] for place in places] for _ in range(direction.steps)],
    }

    def loss_and_values(taps: Any) -> tuple[Any, Any]:
        states = trajectory(direction)
        begun = [state + tap for state, tap in zip(states[0], taps["initial"], strict=True)]
        total = rest(direction, -1, begun, taps["input"])
        for t, by_cell in enumerate(taps["states"]):
            for place, own in enumerate(by_cell):
                tapped = moved(direction, t, place, states[t + 1], own)
                total = total + loss_after(direction, t, place, states[t], tapped)
        return total, states[1:]

    found, values = gradients(loss_and_values, taps)

    def in_input_time(by_step: Any) -> Arrays:
        """One array for each state, from one list of states for each step."""
        flip = slice(None, None, -1 if direction.layer.go_backwards else 1)
        return [np.stack(arrays, 1)[:, flip] for arrays in zip(*by_step, strict=True)]

    return Found(
        states=[in_input_time(states[direction.own(place)] for states in values) for place in places],
        gradients=[in_input_time(by_cell[place] for by_cell in found["states"]) for place in places],
        initial_gradients=[found["initial"][direction.own(place)] for place in places],
        input_gradient=found["input"],
    )


def slope(direction: Direction, t: int, place: int, along: Arrays, h: float = 0.005) -> float:
    """Derivative of the loss as the states of one cell after step t move along `along`: real differences.

    An eighth-order stencil.
    """
    states = trajectory(direction)

    def loss(distance: float) -> float:
        taps = [ops.convert_to_tensor(distance * each) for each in along]
        tapped = moved(direction, t, place, states[t + 1], taps)
        return float(ops.convert_to_numpy(loss_after(direction, t, place, states[t], tapped)))

    factors = {1: 4 / 5, 2: -1 / 5, 3: 4 / 105, 4: -1 / 280}
    return sum(f * (loss(k * h) - loss(-k * h)) / h for k, f in factors.items())
