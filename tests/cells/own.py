"""Cells of one's own for the tests, and the exact derivatives of a whole pass through them by complex step.

The pass is run here anew, states, masks and directions included; only the step itself is the cell's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from examples.cells.indrnn import INDRNN
from examples.cells.minimal_gated_unit import MINIMAL_GATED_UNIT
from tests.cells.cases import batch

import throughtime as tt
from throughtime.cells import Pass

Array = np.ndarray[Any, Any]
STEP = 1e-100


def sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


# A memory beside the hidden state, of another width, which the hidden state follows within the step:
# m_t = rate·m + x A + a;  o = σ(x V + b);  h_t = o ⊙ tanh(m_t P + h U).


def _reservoir(weights: Any, inputs: Array, states: Any) -> tuple[Array, Array, Array]:
    memory = weights["rate"] * states["memory"] + inputs @ weights["input_map"] + weights["offset"]
    gate = sigmoid(inputs @ weights["kernel"] + weights["bias"])
    return memory, gate, np.tanh(memory @ weights["readout"] + states["hidden"] @ weights["recurrent"])


def _reservoir_replay(weights: Any, inputs: Array, states: Any) -> Any:
    memory, gate, squashed = _reservoir(weights, inputs, states)
    return {"hidden": gate * squashed, "memory": memory}, {"open": gate}


def _reservoir_adjoint(weights: Any, inputs: Array, states: Any, gradients: Any) -> tt.StepAdjoint:
    memory, gate, squashed = _reservoir(weights, inputs, states)
    dh = gradients["hidden"]
    dz = dh * squashed * gate * (1 - gate)
    inner = dh * gate * (1 - squashed**2)
    total = gradients["memory"] + inner @ weights["readout"].T
    return tt.StepAdjoint(
        inputs=dz @ weights["kernel"].T + total @ weights["input_map"].T,
        states={"hidden": inner @ weights["recurrent"].T, "memory": weights["rate"] * total},
        gates={"open": dz},
        weights={
            "input_map": (inputs, total),
            "offset": total,
            "kernel": (inputs, dz),
            "bias": dz,
            "readout": (memory, inner),
            "recurrent": (states["hidden"], inner),
        },
        totals={"memory": total},
    )


def _reservoir_jacobian(weights: Any, inputs: Array, states: Any) -> Array:
    memory, gate, squashed = _reservoir(weights, inputs, states)
    slope = (gate * (1 - squashed**2))[:, :, None]
    by_memory = slope * (weights["rate"] * weights["readout"].T)
    hidden_rows = np.concatenate([slope * weights["recurrent"].T, by_memory], axis=2)
    width, units = memory.shape[1], gate.shape[1]
    row = np.concatenate([np.zeros((width, units)), weights["rate"] * np.eye(width)], axis=1)
    return np.concatenate([hidden_rows, np.broadcast_to(row, (len(inputs), *row.shape))], axis=1)


RESERVOIR = tt.Cell(
    name="reservoir",
    replay=_reservoir_replay,
    adjoint=_reservoir_adjoint,
    jacobian=_reservoir_jacobian,
    states=("hidden", "memory"),
    gates=("open",),
    recurrent_weight="recurrent",
    settings=("rate",),
)

# Keras' LSTM as a cell of one's own, in Keras' layout: what the closed form gives, it has to give too.


def _lstm(weights: Any, inputs: Array, states: Any) -> tuple[Array, ...]:
    z = inputs @ weights["kernel"] + states["hidden"] @ weights["recurrent_kernel"] + weights["bias"]
    i, f, g, o = np.split(z, 4, axis=-1)
    i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
    return i, f, g, o, f * states["cell"] + i * g


def _lstm_replay(weights: Any, inputs: Array, states: Any) -> Any:
    i, f, g, o, c = _lstm(weights, inputs, states)
    gates = {"input": i, "forget": f, "candidate": g, "output": o}
    return {"hidden": o * np.tanh(c), "cell": c}, gates


def _lstm_adjoint(weights: Any, inputs: Array, states: Any, gradients: Any) -> tt.StepAdjoint:
    i, f, g, o, c = _lstm(weights, inputs, states)
    dh, dc = gradients["hidden"], gradients["cell"] + gradients["hidden"] * o * (1 - np.tanh(c) ** 2)
    parts = {
        "input": dc * g * i * (1 - i),
        "forget": dc * states["cell"] * f * (1 - f),
        "candidate": dc * i * (1 - g**2),
        "output": dh * np.tanh(c) * o * (1 - o),
    }
    dz = np.concatenate(list(parts.values()), axis=1)
    return tt.StepAdjoint(
        inputs=dz @ weights["kernel"].T,
        states={"hidden": dz @ weights["recurrent_kernel"].T, "cell": dc * f},
        gates=parts,
        weights={"kernel": (inputs, dz), "recurrent_kernel": (states["hidden"], dz), "bias": dz},
        totals={"cell": dc},
    )


OWN_LSTM = tt.Cell(
    name="own_lstm",
    replay=_lstm_replay,
    adjoint=_lstm_adjoint,
    states=("hidden", "cell"),
    gates=("input", "forget", "candidate", "output"),
    recurrent_weight="recurrent_kernel",
)


@dataclass(frozen=True)
class Own:
    """A cell with weights and a batch; gradients are the coefficients of a linear loss.

    `added` names, for each gate and for each state that others follow within a step, the weight that is added
    to it, and where: moving that weight at one step for one sample is a tap.
    """

    cell: tt.Cell
    weights: Mapping[str, Any]
    passed: Pass  # with every initial state
    added: Mapping[str, tuple[str, slice]]

    def values(self) -> dict[str, Array]:
        """Everything that can be moved: inputs, weights, initial states, and taps on states and gates."""
        passed, (samples, steps, _) = self.passed, self.passed.inputs.shape
        initial = dict(zip(self.cell.states, (passed.initial_hidden, *passed.further_initial), strict=True))
        widths = {name: state.shape[1] for name, state in initial.items()}
        widths |= dict.fromkeys(self.cell.gates, widths["hidden"])
        return {
            "input": passed.inputs,
            **{f"initial_{name}": state for name, state in initial.items()},
            **{name: np.zeros((samples, steps, width)) for name, width in widths.items()},
            **{
                f"weight_{name}": self.weights[name]
                for name in self.weights
                if name not in self.cell.settings
            },
        }

    def run(self, values: Mapping[str, Array]) -> dict[str, Any]:
        """Output and states (sample, time, width) in input time, and the loss."""
        passed, (samples, steps, _) = self.passed, self.passed.inputs.shape
        valid = np.ones((samples, steps), bool) if passed.valid is None else passed.valid
        states = {name: values[f"initial_{name}"] for name in self.cell.states}
        output, kept = np.zeros_like(states["hidden"]), {}
        order = list(range(steps))[:: -1 if passed.runs_backward else 1]
        for t in order:
            here = valid[:, t, None]
            after, _ = self.cell.replay(self._weights_at(values, t), values["input"][:, t], states)
            states = {
                name: np.where(here, after[name], states[name])
                + np.where(here & (name in self.added), 0, values[name][:, t])
                for name in states
            }
            output = np.where(here, states["hidden"], 0 if passed.zero_output else output)
            kept[t] = {**states, "output": output}
        found = {name: np.stack([kept[t][name] for t in range(steps)], axis=1) for name in kept[0]}
        return {**found, "loss": self._loss(found["output"], states, order[-1])}

    def _weights_at(self, values: Mapping[str, Array], t: int) -> dict[str, Any]:
        """Weights as they are at one step: what is tapped is another for each sample."""
        weights = {name: values.get(f"weight_{name}", weight) for name, weight in self.weights.items()}
        for tapped, (name, place) in self.added.items():
            moved = np.array(
                np.broadcast_to(weights[name], (len(values["input"]), weights[name].shape[-1])), complex
            )
            moved[:, place] += values[tapped][:, t]
            weights[name] = moved
        return weights

    def _loss(self, output: Array, states: Any, last: int) -> Any:
        passed, total = self.passed, 0.0
        if passed.output_gradient is not None:
            seen = output if passed.output_gradient.ndim == 3 else output[:, last]
            total = total + (seen * passed.output_gradient).sum()
        for name, gradient in zip(
            self.cell.states, (passed.final_hidden_gradient, *passed.further_final_gradients), strict=True
        ):
            total = total if gradient is None else total + (states[name] * gradient).sum()
        return total

    def emitted(self) -> Own:
        """Fill in what the framework would have emitted."""
        return replace(self, passed=replace(self.passed, hidden=self.run(self.values())["output"].real))

    def derivative(self, name: str) -> Array:
        """d loss / d(name), of its shape; exact to rounding."""
        values = self.values()
        found = []
        for entry in range(values[name].size):
            moved = values[name].astype(complex)
            moved.reshape(-1)[entry] += 1j * STEP
            found.append(self.run({**values, name: moved})["loss"].imag / STEP)
        return np.reshape(found, values[name].shape)


def own_case(name: str, rng: np.random.Generator, **options: Any) -> Own:
    """A cell of `CELLS` with random weights on a random batch."""
    cell, shapes, added = CELLS[name]
    features, units = options.pop("features", 2), options.pop("units", 3)
    sizes = {"m": features, "n": units, "k": MEMORY, "2n": 2 * units}
    weights: dict[str, Any] = {
        weight: rng.normal(scale=0.7, size=[sizes[size] for size in shape])
        for weight, shape in shapes.items()
    }
    weights |= dict.fromkeys(cell.settings, 0.8)
    passed = batch(rng, features=features, units=units, **options)
    samples = len(passed.inputs)
    widths = [MEMORY if state == "memory" else units for state in cell.states]
    initial = [rng.normal(size=(samples, width)) for width in widths]
    final = [rng.normal(size=(samples, width)) for width in widths]
    has_final = passed.final_hidden_gradient is not None
    passed = replace(
        passed,
        initial_hidden=initial[0],
        further_initial=tuple(initial[1:]),
        further_final_gradients=tuple(final[1:] if has_final else [None] * (len(widths) - 1)),
    )
    halves = {"forget": slice(0, units), "candidate": slice(units, None)}
    places = {tapped: (weight, halves.get(tapped, slice(None))) for tapped, weight in added.items()}
    return Own(cell, weights, passed, places).emitted()


MEMORY = 4  # units of the reservoir's memory, which has a width of its own
CELLS = {
    "indrnn": (INDRNN, {"kernel": "mn", "recurrent_kernel": "n", "bias": "n"}, {}),
    "minimal_gated_unit": (
        MINIMAL_GATED_UNIT,
        {"kernel": ("m", "2n"), "recurrent_kernel": ("n", "2n"), "bias": ("2n",)},
        {"forget": "bias", "candidate": "bias"},
    ),
    "reservoir": (
        RESERVOIR,
        {"input_map": "mk", "offset": "k", "kernel": "mn", "bias": "n", "readout": "kn", "recurrent": "nn"},
        {"open": "bias", "memory": "offset"},
    ),
}
