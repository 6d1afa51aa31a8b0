"""Programs, their batches, and the oracle: a loop unrolled in Python, with zeros on every state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

SAMPLES, STEPS, FEATURES, UNITS = 3, 6, 2, 4
_rng = np.random.default_rng(0)
X = _rng.normal(size=(SAMPLES, STEPS, FEATURES))
Y = _rng.normal(size=(SAMPLES, 1))
W, U = _rng.normal(size=(FEATURES, UNITS)), 0.5 * _rng.normal(size=(UNITS, UNITS))
DOUBLE = {"param_dtype": jnp.float64, "dtype": jnp.float64}

Step = Callable[[Any, Any], tuple[Mapping[str, Any], Any]]


def squared(output: Any, y: Any) -> Any:
    return (output - y) ** 2


class Reader(nnx.Module):
    """One or several of NNX' layers, and a head that reads the last step."""

    def __init__(self, *layers: Any, width: int = UNITS, seed: int = 1) -> None:
        rngs = nnx.Rngs(seed)
        self.layers = nnx.List(layers)
        self.head = nnx.Linear(width, 1, rngs=rngs, **DOUBLE)

    def __call__(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return self.head(x[:, -1])


def rnn(cell: Any, features: int = FEATURES, seed: int = 0, **options: Any) -> Any:
    rngs = nnx.Rngs(seed)
    return nnx.RNN(cell(features, UNITS, rngs=rngs, **DOUBLE), rngs=rngs, **options)


class Folded(eqx.Module):
    """Equinox' way: one sample, the cell in `lax.scan`."""

    cell: Any
    head: Any

    def __init__(self, cell: Any) -> None:
        first, second = jax.random.split(jax.random.key(0))
        self.cell = cell(FEATURES, UNITS, key=first)
        self.head = eqx.nn.Linear(UNITS, 1, key=second)

    def __call__(self, xs: Any) -> Any:
        zeros = jnp.zeros(UNITS)
        start = (zeros, zeros) if isinstance(self.cell, eqx.nn.LSTMCell) else zeros
        last, _ = jax.lax.scan(lambda state, x: (self.cell(x, state), None), start, xs)
        return self.head(last[0] if isinstance(last, tuple) else last)


def bare(x: Any, *, reverse: bool = False) -> Any:
    def step(hidden: Any, now: Any) -> Any:
        hidden = jnp.tanh(now @ W + hidden @ U)
        return hidden, hidden

    start = jnp.zeros((x.shape[0], UNITS))
    _, steps = jax.lax.scan(step, start, jnp.swapaxes(x, 0, 1), reverse=reverse)
    return jnp.sum(steps**2, (0, 2))[:, None]


def unrolled(
    step: Step,
    start: Mapping[str, Any],
    finish: Callable[[list[Any], Mapping[str, Any]], Any],
    order: Any = None,
) -> dict[str, Any]:
    """Gradient of a loss with respect to zeros added to every state and input, found by `jax.grad` alone.

    `step` (states, x_t, zeros_t) returns states, to each of which it has added its zero where it is made, and
    what it hands out; `finish` (outputs, last states) the loss.
    """
    order = range(STEPS) if order is None else order
    zeros = {
        **{name: jnp.zeros((STEPS, *value.shape)) for name, value in start.items()},
        "input": jnp.zeros((STEPS, SAMPLES, FEATURES)),
    }

    def loss(zeros: Any) -> Any:
        states, outputs = dict(start), {}
        for t in order:
            now = {name: zero[t] for name, zero in zeros.items()}
            states, outputs[t] = step(states, jnp.asarray(X[:, t]) + now["input"], now)
        return finish([outputs[t] for t in range(STEPS)], states)

    found = jax.grad(loss)(zeros)
    return {name: np.moveaxis(np.asarray(value), 0, 1) for name, value in found.items()}
