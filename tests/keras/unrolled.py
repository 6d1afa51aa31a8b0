"""Recurrent layers unrolled by hand from their weights: a loop of `keras.ops`, differentiated by autodiff.

Zero taps are added to h_t, c_t, every gate's pre-activation, the initial states and each step's own copy of
the recurrent kernel; the gradient with respect to a tap is the total derivative there. Shares no code with
the library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

BACKEND = keras.backend.backend()
if BACKEND == "tensorflow":
    import tensorflow as tf
elif BACKEND == "jax":
    import jax
else:
    import torch

GATES = {keras.layers.LSTMCell: 4, keras.layers.GRUCell: 3, keras.layers.SimpleRNNCell: 1}
Taps = dict[str, Any]


@contextmanager
def computing_in(dtype: str) -> Iterator[None]:
    """Layers, inputs and losses made in the block are of this dtype."""
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


def gate_count(layer: Any) -> int:
    return GATES[type(layer.cell)]


def zero_taps(layer: Any, samples: int, steps: int, dtype: str) -> Taps:
    """One zero for each place that a gradient is wanted for."""
    units, gates = layer.units, gate_count(layer)
    shapes = {
        "hidden": (samples, steps, units),
        "gate": (samples, steps, gates * units),
        "initial_hidden": (samples, units),
        "recurrent_kernel": (samples, steps, units, gates * units),
    }
    if gates == 4:
        shapes |= {"cell": (samples, steps, units), "initial_cell": (samples, units)}
    return {name: np.zeros(shape, dtype) for name, shape in shapes.items()}


def halves(layer: Any) -> tuple[Any, ...]:
    both = isinstance(layer, keras.layers.Bidirectional)
    return (layer.forward_layer, layer.backward_layer) if both else (layer,)


class Unrolled:
    """Runs layers on taps and keeps every state and gate, by the layer's path in the tree."""

    def __init__(self, taps: dict[str, list[Taps]]) -> None:
        self.taps = taps
        self.values: dict[str, list[Taps]] = {}

    def run(self, path: str, layer: Any, x: Any, mask: Any = None, initial: Any = None) -> tuple[Any, Any]:
        """What the layer returns, and its final states."""
        ran = [
            unroll(half, x, mask, initial, taps)
            for half, taps in zip(halves(layer), self.taps[path], strict=True)
        ]
        self.values[path] = [values for _, _, values in ran]
        if len(ran) == 1:
            return ran[0][0], ran[0][1]
        forward, backward = ran[0][0], ran[1][0]
        backward = ops.flip(backward, axis=1) if layer.forward_layer.return_sequences else backward
        merged = (
            ops.concatenate([forward, backward], -1) if layer.merge_mode == "concat" else forward + backward
        )
        return merged, None


def unroll(layer: Any, x: Any, mask: Any, initial: Any, taps: Taps) -> tuple[Any, Any, Taps]:
    """Output, final states, and the states and gates of all steps in input time."""
    samples, steps, _ = x.shape
    names = ("hidden", "cell")[: 2 if gate_count(layer) == 4 else 1]
    zeros = ops.zeros((samples, layer.units), x.dtype)
    states = list(initial) if initial is not None else [zeros for _ in names]
    states = [state + taps[f"initial_{name}"] for state, name in zip(states, names, strict=True)]
    output = states[0] if BACKEND == "jax" else zeros  # before the first valid step JAX repeats h_0
    outputs, kept = [], {}
    for t in reversed(range(steps)) if layer.go_backwards else range(steps):
        valid = ops.convert_to_tensor(np.ones((samples, 1), bool) if mask is None else mask[:, t, None])
        at_t = {name: tap[:, t] for name, tap in taps.items() if "initial" not in name}
        new, gates = advance(layer.cell, x[:, t], states, at_t)
        hidden = ops.where(valid, new[0], states[0]) + at_t["hidden"]
        # A valid h_t has followed the tap on c_t, a copied one has not.
        cell = [ops.where(valid, new[1], states[1] + at_t["cell"])] if len(names) == 2 else []
        states = [hidden, *cell]
        output = ops.where(valid, hidden, zeros if layer.zero_output_for_mask else output)
        outputs.append(output)
        kept[t] = (*states, gates)
    values = {
        name: ops.stack([kept[t][k] for t in range(steps)], 1) for k, name in enumerate((*names, "gate"))
    }
    return ops.stack(outputs, 1) if layer.return_sequences else output, states, values


def advance(cell: Any, x: Any, states: list[Any], taps: Taps) -> tuple[list[Any], Any]:
    """One step: new states, and all gates after their activation side by side."""
    kernel, recurrent = (ops.convert_to_tensor(w.value) for w in (cell.kernel, cell.recurrent_kernel))
    h, u = states[0], recurrent + taps["recurrent_kernel"]  # each sample and step has a U of its own
    if type(cell) is keras.layers.GRUCell:
        return _gru(cell, ops.matmul(x, kernel) + taps["gate"], h, u)
    z = ops.matmul(x, kernel) + _times(h, u) + ops.convert_to_tensor(cell.bias.value) + taps["gate"]
    if type(cell) is keras.layers.SimpleRNNCell:
        return [ops.tanh(z)], ops.tanh(z)
    i, f, g, o = ops.split(z, 4, -1)
    i, f, g, o = ops.sigmoid(i), ops.sigmoid(f), ops.tanh(g), ops.sigmoid(o)
    c = f * states[1] + i * g + taps["cell"]
    return [o * ops.tanh(c), c], ops.concatenate([i, f, g, o], -1)


def _gru(cell: Any, z: Any, h: Any, u: Any) -> tuple[list[Any], Any]:
    units, bias = cell.units, ops.convert_to_tensor(cell.bias.value)
    z = z + (bias[0] if cell.reset_after else bias)
    update = ops.sigmoid(z[:, :units] + _recurrent(cell, h, u, bias, 0))
    reset = ops.sigmoid(z[:, units : 2 * units] + _recurrent(cell, h, u, bias, 1))
    if cell.reset_after:
        candidate = ops.tanh(z[:, 2 * units :] + reset * _recurrent(cell, h, u, bias, 2))
    else:
        candidate = ops.tanh(z[:, 2 * units :] + _recurrent(cell, reset * h, u, bias, 2))
    return [update * h + (1 - update) * candidate], ops.concatenate([update, reset, candidate], -1)


def _recurrent(cell: Any, h: Any, u: Any, bias: Any, gate: int) -> Any:
    columns = slice(gate * cell.units, (gate + 1) * cell.units)
    product = _times(h, u[..., columns])
    return product + bias[1, columns] if cell.reset_after else product


def _times(h: Any, u: Any) -> Any:
    """(sample, unit) times (sample, unit, column)."""
    return ops.sum(h[:, :, None] * u, 1)


def gradients(function: Callable[[Any], tuple[Any, Any]], taps: Any) -> tuple[Any, Any]:
    """Gradients of (loss, values) = function(taps) with respect to every tap, and the values; as NumPy."""
    if BACKEND == "tensorflow":
        leaves = keras.tree.map_structure(tf.constant, taps)
        with tf.GradientTape() as tape:
            tape.watch(leaves)
            loss, values = function(leaves)
        found = tape.gradient(loss, leaves, unconnected_gradients="zero")
    elif BACKEND == "jax":
        found, values = jax.grad(function, has_aux=True)(
            taps
        )  # uncompiled: every case shares the same small operations
    else:
        leaves = keras.tree.map_structure(lambda tap: torch.tensor(tap, requires_grad=True), taps)
        loss, values = function(leaves)
        flat = torch.autograd.grad(
            loss, keras.tree.flatten(leaves), materialize_grads=True, allow_unused=True
        )
        found = keras.tree.pack_sequence_as(leaves, list(flat))
    as_numpy = keras.ops.convert_to_numpy
    return keras.tree.map_structure(as_numpy, found), keras.tree.map_structure(as_numpy, values)
