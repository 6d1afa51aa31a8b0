"""Recurrent networks in plain NumPy float64, and exact gradients by complex step: the oracle of the tests.

Forward pass only, written after Keras' documentation and sharing no code with the library. A gradient is
the imaginary part of the loss when one element of an additive zero gets the value ih, which is exact to
rounding; all elements are perturbed at once along an extra leading axis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
States = tuple[Array, ...]
STEP = 1e-100  # h² vanishes against 1 without underflow
GATE_COUNT = {"lstm": 4, "gru": 3, "gru_reset_before": 3, "simple_rnn": 1}
STATE_COUNT = {"lstm": 2, "gru": 1, "gru_reset_before": 1, "simple_rnn": 1}


def sigmoid(z: Array) -> Array:
    """Logistic function, analytic for complex z."""
    return 0.5 * (1.0 + np.tanh(0.5 * z))


def simple_rnn_step(x: Array, states: States, weights: States) -> States:
    kernel, recurrent, bias = weights
    return (np.tanh(x @ kernel + states[0] @ recurrent + bias[..., None, :]),)


def lstm_step(x: Array, states: States, weights: States) -> States:
    kernel, recurrent, bias = weights
    h, c = states
    z = x @ kernel + h @ recurrent + bias[..., None, :]
    i, f, g, o = np.split(z, 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru_step(x: Array, states: States, weights: States) -> States:
    """Reset gate after the matrix product, two biases."""
    kernel, recurrent, bias = weights
    (h,) = states
    x_z, x_r, x_h = np.split(x @ kernel + bias[..., 0, None, :], 3, axis=-1)
    h_z, h_r, h_h = np.split(h @ recurrent + bias[..., 1, None, :], 3, axis=-1)
    z, r = sigmoid(x_z + h_z), sigmoid(x_r + h_r)
    return (z * h + (1 - z) * np.tanh(x_h + r * h_h),)


def gru_reset_before_step(x: Array, states: States, weights: States) -> States:
    kernel, recurrent, bias = weights
    (h,) = states
    u_z, u_r, u_h = np.split(recurrent, 3, axis=-1)
    x_z, x_r, x_h = np.split(x @ kernel + bias[..., None, :], 3, axis=-1)
    z, r = sigmoid(x_z + h @ u_z), sigmoid(x_r + h @ u_r)
    return (z * h + (1 - z) * np.tanh(x_h + (r * h) @ u_h),)


STEPS: Mapping[str, Callable[[Array, States, States], States]] = {
    "simple_rnn": simple_rnn_step,
    "lstm": lstm_step,
    "gru": gru_step,
    "gru_reset_before": gru_reset_before_step,
}
MERGES: Mapping[str, Callable[[Array, Array], Array]] = {
    "concat": lambda a, b: np.concatenate(np.broadcast_arrays(a, b), axis=-1),
    "sum": lambda a, b: a + b,
    "ave": lambda a, b: (a + b) / 2,
    "mul": lambda a, b: a * b,
}


@dataclass(frozen=True)
class Layer:
    """Configuration of one recurrent layer; `merge` makes it bidirectional."""

    kind: str
    return_sequences: bool = False
    go_backwards: bool = False
    merge: str | None = None

    @property
    def directions(self) -> int:
        return 2 if self.merge else 1


def run_layer(
    layer: Layer, weights: States, x: Array, mask: Array | None = None, states: States | None = None
) -> Array:
    """Output of one layer, (…, sample, [time,] unit), in the order in which Keras gives it."""
    if layer.merge is None:
        return run_direction(layer, weights, x, mask, states, zero_masked=False)
    half = len(weights) // 2
    backward = Layer(layer.kind, layer.return_sequences, go_backwards=True)
    forward = Layer(layer.kind, layer.return_sequences)
    # Bidirectional forces zero_output_for_mask where it returns sequences.
    zero = layer.return_sequences
    ahead = run_direction(forward, weights[:half], x, mask, None, zero_masked=zero)
    back = run_direction(backward, weights[half:], x, mask, None, zero_masked=zero)
    if layer.return_sequences:
        back = np.flip(back, axis=-2)
    return MERGES[layer.merge](ahead, back)


def run_direction(
    layer: Layer,
    weights: States,
    x: Array,
    mask: Array | None,
    states: States | None,
    *,
    zero_masked: bool,
) -> Array:
    """One pass over time; outputs in processing order."""
    steps = x.shape[-2]
    units = weights[1].shape[-2]
    if mask is None:
        mask = np.ones((x.shape[-3], steps), bool)
    if layer.go_backwards:
        x, mask = np.flip(x, axis=-2), np.flip(mask, axis=-1)
    if states is None:
        states = (np.zeros((x.shape[-3], units)),) * STATE_COUNT[layer.kind]
    previous: Array = np.zeros((x.shape[-3], units))
    outputs = []
    for t in range(steps):
        valid = mask[:, t, None]
        new = STEPS[layer.kind](x[..., t, :], states, weights)
        # A masked step copies every state; its output repeats the previous one, or is zero.
        output = np.where(valid, new[0], 0.0 if zero_masked else previous)
        states = tuple(np.where(valid, after, before) for after, before in zip(new, states, strict=True))
        previous = output
        outputs.append(output)
    return np.stack(outputs, axis=-2) if layer.return_sequences else outputs[-1]


def mean_squared_error(
    prediction: Array, target: Array, sample_weight: Array | None, mask: Array | None, reduction: str
) -> Array:
    """Keras' MeanSquaredError: a mask divides by the number of valid entries, weights do not."""
    values = np.mean((prediction - target) ** 2, axis=-1)  # (…, sample[, time])
    entries = target.shape[:-1]
    weights = np.ones(entries)
    if mask is not None:
        scale = mask.size / max(mask.sum(), 1) if reduction == "mean" else 1.0
        weights = weights * mask * scale
    if sample_weight is not None:
        weights = weights * sample_weight
    total = np.sum(values * weights, axis=tuple(range(-len(entries), 0)))
    return total / np.prod(entries) if reduction == "mean" else total


@dataclass(frozen=True)
class Network:
    """A chain of recurrent layers, a Dense head, mean squared error; everything float64.

    `weights[i]` are the arrays of layer i in Keras' order with every bias present; `penalty` is the
    factor of an L2 regulariser on all weights of the recurrent layers.
    """

    layers: tuple[Layer, ...]
    weights: tuple[States, ...]
    head: tuple[Array, Array]
    x: Array
    y: Array
    mask: Array | None = None
    loss_mask: Array | None = None
    sample_weight: Array | None = None
    states: States | None = None
    reduction: str = "mean"
    penalty: float = 0.0
    taps: Mapping[tuple[int, str], Array] = field(default_factory=dict)

    def run(self) -> tuple[list[Array], list[Array], Array]:
        """Inputs of the layers, outputs of the layers, prediction."""
        inputs, outputs = [], []
        value = self.x
        for index, layer in enumerate(self.layers):
            value = value + self.taps.get((index, "input"), 0.0)
            inputs.append(value)
            value = run_layer(layer, self._weights(index), value, self.mask, self.states)
            value = value + self.taps.get((index, "output"), 0.0)
            outputs.append(value)
        kernel, bias = self.head
        return inputs, outputs, value @ kernel + bias

    def loss(self) -> Array:
        prediction = self.run()[2]
        data = mean_squared_error(prediction, self.y, self.sample_weight, self.loss_mask, self.reduction)
        if not self.penalty:
            return data
        # Taps on a weight have one leading axis more than the weight has.
        squares = sum(
            np.sum(w**2, axis=tuple(range(-own.ndim, 0)))
            for index, layer in enumerate(self.weights)
            for w, own in zip(self._weights(index), layer, strict=True)
        )
        return data + self.penalty * squares

    def _weights(self, index: int) -> States:
        return tuple(
            w + self.taps.get((index, f"weight_{place}"), 0.0) for place, w in enumerate(self.weights[index])
        )

    def gradient(self, index: int, place: str) -> Array:
        """Gradient of the loss with respect to `input`, `output` or `weight_<k>` of layer `index`."""
        inputs, outputs, _ = self.run()
        if place == "input":
            shape = inputs[index].shape
        elif place == "output":
            shape = outputs[index].shape
        else:
            shape = self.weights[index][int(place.removeprefix("weight_"))].shape
        size = int(np.prod(shape))
        tap = 1j * STEP * np.eye(size).reshape(size, *shape)
        return (self.with_tap(index, place, tap).loss().imag / STEP).reshape(shape)

    def with_tap(self, index: int, place: str, tap: Array) -> Network:
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return Network(**{**fields, "taps": {(index, place): tap}})

    def stencil_gradient(self, index: int, place: str, h: float = 0.01) -> Array:
        """The same gradient by an eighth-order central stencil on real numbers."""
        shape = self.gradient(index, place).shape
        directions = np.eye(int(np.prod(shape))).reshape(-1, *shape)
        factors = {1: 4 / 5, 2: -1 / 5, 3: 4 / 105, 4: -1 / 280}
        total = 0.0
        for k, factor in factors.items():
            above = self.with_tap(index, place, k * h * directions).loss()
            below = self.with_tap(index, place, -k * h * directions).loss()
            total = total + factor * (above - below) / h
        return np.asarray(total).reshape(shape)
