"""An LSTM with projections, h_t = W_hr (o · tanh c_t), which has no closed form here: run step by step.

Every place whose gradient is wanted gets a zero added to it, a tap; the gradient with respect to a tap is
the total derivative there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from throughtime.adapters.records import Array, DirectionRecord, SolvedRecord

from .structure import from_numpy
from .weights import PROJECTION

_WIDE = ("cell", "cell_gradient", "gate_activation", "gate_gradient", "initial_cell_gradient")


def dims(is_bidirectional: bool) -> dict[str, tuple[str, ...]]:
    """Axes of a layer whose cell is wider than its hidden state.

    Examples
    --------
    >>> dims(False)["cell"], dims(True)["projection"]
    (('sample', 'time', 'cell_unit'), ('direction', 'cell_unit', 'unit'))
    """
    direction = ("direction",) if is_bidirectional else ()
    found = {
        "cell": ("sample", "time", *direction, "cell_unit"),
        "gate_activation": ("sample", "time", *direction, "gate", "cell_unit"),
        "initial_cell": ("sample", *direction, "cell_unit"),
        "kernel": (*direction, "feature", "gate", "cell_unit"),
        "recurrent_kernel": (*direction, "unit_from", "gate", "cell_unit"),
        "bias": (*direction, "gate", "cell_unit"),
        "recurrent_bias": (*direction, "gate", "cell_unit"),
        PROJECTION: (*direction, "cell_unit", "unit"),
    }
    found |= {f"{name}_gradient": axes for name, axes in found.items()}
    return {**found, "gate_gradient": found["gate_activation"]}


def solved(record: DirectionRecord, *, has_labels: bool) -> SolvedRecord:
    """Repeat one direction step by step from what the fused kernel started from and was asked.

    Parameters
    ----------
    record : DirectionRecord
        Of the kernel, with a `projection` (cell_unit, unit) among the weights.
    has_labels : bool
        Without, there are no gradients.
    """
    unrolled = _Unrolled(record)
    unrolled.run()
    arrays = {name: unrolled.in_input_time(steps) for name, steps in unrolled.values.items()}
    arrays["input"] = record.inputs
    if has_labels:
        arrays |= unrolled.gradients()
    return SolvedRecord(
        arrays=arrays,
        weight_gradients=record.weight_gradients,
        input_gradient=record.input_gradient,
        initial=record.initial,
        hidden_before=unrolled.in_input_time(unrolled.before),
    )


@dataclass(frozen=True)
class _Taps:
    gate: torch.Tensor
    cell: torch.Tensor
    hidden: torch.Tensor


class _Unrolled:
    """One direction, time-major in processing order."""

    def __init__(self, record: DirectionRecord) -> None:
        self.record = record
        self.dtype = np.result_type(record.hidden.dtype, np.float32)
        self.weights = {name: self._leaf(weight) for name, weight in record.weights.items()}
        self.inputs = self._leaf(self._processing(record.inputs))
        self.initial = [self._leaf(state) for state in record.initial]
        self.values: dict[str, list[torch.Tensor]] = {"hidden": [], "cell": [], "gate_activation": []}
        self.before: list[torch.Tensor] = []
        (steps, samples), (wide, narrow) = self.inputs.shape[:2], self.weights[PROJECTION].shape
        shapes = ((4, wide), (wide,), (narrow,))
        self.taps = _Taps(*(self._leaf(np.zeros((steps, samples, *shape))) for shape in shapes))

    def _leaf(self, array: Any) -> torch.Tensor:
        return from_numpy(array, self.dtype).requires_grad_()

    def _processing(self, array: Array) -> Array:
        swapped = array.swapaxes(0, 1)
        return swapped[::-1] if self.record.runs_backward else swapped

    def in_input_time(self, steps: Sequence[torch.Tensor] | torch.Tensor) -> Array:
        """Turn (time, sample, …) in processing order into (sample, time, …) in input time."""
        stacked = steps if isinstance(steps, torch.Tensor) else torch.stack(list(steps))
        array: Array = stacked.detach().numpy()
        return (array[::-1] if self.record.runs_backward else array).swapaxes(0, 1)

    def run(self) -> None:
        """Run all steps."""
        hidden, cell = self.initial
        valid = None if self.record.valid is None else from_numpy(self._processing(self.record.valid))
        with torch.inference_mode(False), torch.enable_grad():
            for t in range(len(self.inputs)):
                self.before.append(hidden)
                hidden, cell = self._step(t, hidden, cell, None if valid is None else valid[t][:, None])

    def _step(
        self, t: int, hidden: torch.Tensor, cell: torch.Tensor, valid: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        weights = self.weights
        z = torch.tensordot(self.inputs[t], weights["kernel"], 1)
        z = z + torch.tensordot(hidden, weights["recurrent_kernel"], 1) + self.taps.gate[t]
        for name in ("bias", "recurrent_bias"):
            z = z + weights[name] if name in weights else z
        i, f, g, o = z.unbind(1)
        i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
        after = f * cell + i * g
        after = (after if valid is None else torch.where(valid, after, cell)) + self.taps.cell[t]
        projected = (o * after.tanh()) @ weights[PROJECTION]
        projected = projected if valid is None else torch.where(valid, projected, hidden)
        projected = projected + self.taps.hidden[t]
        for name, value in zip(self.values, (projected, after, torch.stack([i, f, g, o], 1)), strict=True):
            self.values[name].append(value)
        return projected, after

    def gradients(self) -> dict[str, Array]:
        """Differentiate what the kernel was asked: the gradient of its output and of its final states."""
        hidden, cell = torch.stack(self.values["hidden"]), self.values["cell"][-1]
        asked = self.record.output_gradient
        pairs = [(hidden, None if asked is None else self._processing(asked))]
        if (
            asked is not None and self.record.valid is not None
        ):  # what is emitted past the end is a constant 0
            pairs = [(hidden, self._processing(asked * self.record.valid[..., None]))]
        pairs += zip((hidden[-1], cell), self.record.final_gradients, strict=True)
        known = [(value, from_numpy(g, self.dtype)) for value, g in pairs if g is not None]
        places = {
            "hidden_gradient": self.taps.hidden,
            "cell_gradient": self.taps.cell,
            "gate_gradient": self.taps.gate,
            "input_gradient": self.inputs,
            "initial_hidden_gradient": self.initial[0],
            "initial_cell_gradient": self.initial[1],
            **{f"{name}_gradient": weight for name, weight in self.weights.items()},
        }
        objective = sum(((value * gradient).sum() for value, gradient in known), 0.0 * hidden.sum())
        found = torch.autograd.grad(objective, list(places.values()), allow_unused=True)
        by_time = ("hidden_gradient", "cell_gradient", "gate_gradient", "input_gradient")
        return {
            name: self.in_input_time(gradient) if name in by_time else gradient.numpy()
            for (name, place), each in zip(places.items(), found, strict=True)
            for gradient in [torch.zeros_like(place) if each is None else each]
        }
