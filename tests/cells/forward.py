"""An independent recurrent layer with taps, and the exact derivative of its loss by complex step.

Written from the equations of Keras' documentation, forward only, sharing no code with the library. Leading
axes may be put before every array, so that all elements of a tap are perturbed in one run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from throughtime.cells import Layer, Pass

Array = np.ndarray[Any, Any]
STEP = 1e-100

# Analytic where it matters: branches look at the real part only.
FUNCTIONS: Mapping[str, Callable[[Array], Array]] = {
    "tanh": np.tanh,
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "relu": lambda z: np.where(z.real > 0, z, 0),
    "linear": lambda z: z,
    "hard_sigmoid": lambda z: np.where(z.real < -3, 0, np.where(z.real > 3, 1, (z + 3) / 6)),
    "softsign": lambda z: z / (1 + np.where(z.real > 0, z, -z)),
    "elu": lambda z: np.where(z.real > 0, z, np.exp(z) - 1),
    "softplus": lambda z: np.log(1 + np.exp(z)),
    "exponential": np.exp,
}


def gate_sums(x: Array, kernel: Array) -> Array:
    """(…, sample, feature) by (…, feature, gate, unit)."""
    return np.einsum("...sf,...fgu->...sgu", x, kernel)


def next_state(
    kind: str, weights: Mapping[str, Array], x: Array, h: Array, c: Array, tap: Mapping[str, Array]
):
    """One step; `tap` holds what is added to each gate before its activation, and to c."""
    phi, sigma = weights["activation"], weights["recurrent_activation"]
    sums = gate_sums(x, weights["kernel"]) + weights["bias"][..., None, :, :] + tap["gate"]
    kernel = weights["recurrent_kernel"]
    recurrent = gate_sums(h, kernel) + weights["recurrent_bias"][..., None, :, :]
    if kind == "simple_rnn":
        return phi(sums + recurrent)[..., 0, :], c
    if kind == "lstm":
        i, f, g, o = np.moveaxis(sums + recurrent, -2, 0)
        c = sigma(f) * c + sigma(i) * phi(g) + tap["cell"]
        return sigma(o) * phi(c), c
    z, r = (sigma((sums + recurrent)[..., gate, :]) for gate in (0, 1))
    if kind == "gru":
        candidate = phi(sums[..., 2, :] + r * recurrent[..., 2, :])
    else:
        candidate = phi(sums[..., 2, :] + np.einsum("...su,...uv->...sv", r * h, kernel[..., :, 2, :]))
    return z * h + (1 - z) * candidate, c


@dataclass(frozen=True)
class Case:
    """A layer and a batch; gradients are the coefficients of a linear loss."""

    layer: Layer
    passed: Pass  # without `hidden`, which `run` gives

    @property
    def kind(self) -> str:
        reset_before = self.layer.kind == "gru" and not self.layer.reset_after
        return "gru_reset_before" if reset_before else self.layer.kind

    def values(self) -> dict[str, Array]:
        """Everything a tap can be added to; taps on states and gates are zeros."""
        samples, steps, _ = self.passed.inputs.shape
        units, gates = self.layer.recurrent_kernel.shape[0], self.layer.kernel.size
        gates //= units * self.layer.kernel.shape[0]
        zeros = np.zeros((samples, steps, units))
        initial = self.passed.initial or (zeros[:, 0], zeros[:, 0])
        given = dict(zip(("initial_hidden", "initial_cell"), initial, strict=True))
        by_gate = {
            "kernel": self.layer.kernel.reshape(-1, gates, units),
            "recurrent_kernel": self.layer.recurrent_kernel.reshape(-1, gates, units),
        }
        for name in ("bias", "recurrent_bias"):
            bias = getattr(self.layer, name)
            by_gate[name] = np.zeros((gates, units)) if bias is None else bias.reshape(gates, units)
        taps = {"hidden": zeros, "cell": zeros, "gate": np.zeros((samples, steps, gates, units))}
        return {"input": self.passed.inputs, **given, **by_gate, **taps}

    def run(self, values: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """Outputs and states (…, sample, time, unit) in input time, and the loss (…)."""
        values = values or self.values()
        passed = self.passed
        samples, steps = passed.inputs.shape[:2]
        valid = np.ones((samples, steps), bool) if passed.valid is None else passed.valid
        order = list(range(steps))[:: -1 if passed.runs_backward else 1]
        weights = dict(values)
        weights["activation"] = FUNCTIONS[self.layer.activation]
        weights["recurrent_activation"] = FUNCTIONS[self.layer.recurrent_activation]
        h, c, output = values["initial_hidden"], values["initial_cell"], np.zeros(1)
        hidden, cell, outputs = {}, {}, {}
        for t in order:
            tap = {name: values[name][..., t, :] for name in ("hidden", "cell")}
            tap["gate"] = values["gate"][..., t, :, :]
            new_h, new_c = next_state(self.kind, weights, values["input"][..., t, :], h, c, tap)
            here = valid[:, t, None]
            h = np.where(here, new_h, h) + tap["hidden"]
            c = np.where(here, new_c, c + tap["cell"])
            output = np.where(here, h, 0 if passed.zero_output else output)
            hidden[t], cell[t], outputs[t] = h, c, output
        result = {
            name: np.stack([np.broadcast_to(by_step[t], h.shape) for t in range(steps)], axis=-2)
            for name, by_step in (("hidden", hidden), ("cell", cell), ("output", outputs))
        }
        return {**result, "loss": self.loss(result["output"], h, c, order[-1])}

    def loss(self, output: Array, h: Array, c: Array, last: int) -> Array:
        passed = self.passed
        total = np.zeros(output.shape[:-3])
        if passed.output_gradient is not None:
            seen = output if passed.output_gradient.ndim == 3 else output[..., last, :]
            axes = tuple(range(-passed.output_gradient.ndim, 0))
            total = total + (seen * passed.output_gradient).sum(axes)
        states = [h, c] if self.kind == "lstm" else [h]
        for state, gradient in zip(states, passed.final_gradients, strict=False):
            total = total + (state * gradient).sum((-2, -1))
        return total

    def derivative(self, name: str, of: str = "loss") -> Array:
        """d(of)/d(name), the axes of `name` last; exact to rounding."""
        values = self.values()
        value = values[name]
        directions = np.eye(value.size).reshape(value.size, *value.shape)
        # Every array gets the leading axis: broadcasting aligns from the right, and ranks differ.
        perturbed = {key: each[None] for key, each in values.items()}
        perturbed[name] = value + 1j * STEP * directions
        result = np.moveaxis(self.run(perturbed)[of].imag / STEP, 0, -1)
        return result.reshape(*result.shape[:-1], *value.shape)
