"""The adjoint as a textbook has it: float64, one step at a time, nothing clever. Read this to learn it.

The oracle of the fast `adjoint`, from which it shares only the order of time and the carrying of states
over masked steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from .kinds import cell_of
from .layer import Floats, Layer, Mask, Pass, with_gate_axis
from .lstm import next_cell
from .quantities import GATED
from .scan import (
    Steps,
    arrange,
    final_gradients,
    forward_scan,
    in_input_time,
    output_gradient,
    reverse_scan,
    where_valid,
)
from .steps import Step, StepGradient


def textbook(layer: Layer, passed: Pass) -> dict[str, Floats]:
    """Everything `solve` knows, in float64, from the equations of one step and a plain loop over time.

    Parameters
    ----------
    layer : Layer
    passed : Pass

    Returns
    -------
    dict of ndarray
        By the names of `solve`.
    """
    plain, steps = with_gate_axis(layer, np.float64), arrange(passed, np.float64)
    cell = cell_of(layer)
    each = _each_step(plain, steps)
    backs, arrived, (initial_hidden, initial_cell) = _backward(plain, passed, steps, each)
    by_time = {
        "hidden": steps.hidden[1:],
        "hidden_gradient": np.stack([hidden for hidden, _ in arrived]),
        "gate_activation": np.stack([cell.gates(plain, step) for step in each]),
        **_by_time(plain, each, backs),
    }
    found = {name: in_input_time(values, passed) for name, values in by_time.items()}
    found["initial_hidden_gradient"] = initial_hidden
    if layer.kind == "lstm":
        found["initial_cell_gradient"] = initial_cell
    return _without_gate_axis(layer, {**found, **_weight_gradients(plain, steps, backs)})


def _by_time(layer: Layer, each: Sequence[Step], backs: Sequence[StepGradient]) -> dict[str, Floats]:
    """Put the steps one after another: (time, sample, …)."""
    by_time = {
        "gate_gradient": np.stack([back.gates for back in backs]),
        "input_gradient": np.stack(
            [np.tensordot(back.gates, layer.kernel, ([1, 2], [1, 2])) for back in backs]
        ),
        "step_contribution": np.stack([_frobenius(back.recurrent_kernel) for back in backs]),
    }
    if layer.kind == "lstm":
        by_time["cell"] = np.stack([step.cell for step in each if step.cell is not None])
        by_time["cell_gradient"] = np.stack([back.cell for back in backs if back.cell is not None])
    return by_time


def _each_step(layer: Layer, steps: Steps) -> list[Step]:
    """Run the forward pass: h is known, c of an LSTM is not."""
    cell, known = cell_of(layer), list(map(Step, steps.inputs, steps.hidden[:-1]))
    if layer.kind != "lstm":
        return known

    def after(t: int, states: Sequence[Floats]) -> Sequence[Floats]:
        return [next_cell(cell.gates(layer, known[t]), states[0])]

    cells = [states[0] for states in forward_scan(steps, [steps.initial_cell], after)]
    return [
        replace(step, cell_before=before, cell=here)
        for step, (before, here) in zip(known, pairwise(cells), strict=True)
    ]


def _backward(
    layer: Layer, passed: Pass, steps: Steps, each: Sequence[Step]
) -> tuple[list[StepGradient], list[Sequence[Floats]], Sequence[Floats]]:
    """Pull the gradient back: what each step gives, dL/d(h, c) after it, and before the first one."""
    found: list[StepGradient] = []

    def pull(t: int, arriving: Sequence[Floats]) -> Sequence[Floats]:
        back = cell_of(layer).step_back(layer, each[t], arriving[0], arriving[1])
        found.append(_or_nothing(back, steps.valid_at(t), arriving[1]))
        return back.hidden_before, arriving[1] if back.cell_before is None else back.cell_before

    arrived, before = reverse_scan(
        steps,
        output_gradient(passed, np.float64),
        final_gradients(passed, np.float64),
        pull,
        zero_output=passed.zero_output,
    )
    return found[::-1], arrived, before


def _or_nothing(back: StepGradient, valid: Mask | None, cell_gradient: Floats) -> StepGradient:
    """Replace what a masked sample's step gave by nothing; what the cell's later steps sent back passes."""
    return replace(
        back,
        gates=where_valid(back.gates, 0, valid),
        recurrent=where_valid(back.recurrent, 0, valid),
        recurrent_kernel=where_valid(back.recurrent_kernel, 0, valid),
        cell=None if back.cell is None else where_valid(back.cell, cell_gradient, valid),
    )


def _weight_gradients(layer: Layer, steps: Steps, backs: Sequence[StepGradient]) -> dict[str, Floats]:
    """Σ over steps and samples of dW = xᵀξ, dU, db = (ξ, ρ)."""
    kernel = sum(np.tensordot(x, back.gates, (0, 0)) for x, back in zip(steps.inputs, backs, strict=True))
    gradients = {
        "kernel_gradient": np.asarray(kernel),
        "recurrent_kernel_gradient": np.sum([back.recurrent_kernel for back in backs], axis=(0, 1)),
    }
    if layer.bias is not None:
        gradients["bias_gradient"] = np.sum([back.gates for back in backs], axis=(0, 1))
    if layer.recurrent_bias is not None:
        gradients["recurrent_bias_gradient"] = np.sum([back.recurrent for back in backs], axis=(0, 1))
    return gradients


def _frobenius(per_sample: Floats) -> Floats:
    squares: Floats = np.square(per_sample).sum(axis=(1, 2, 3))
    return np.sqrt(squares)


def _without_gate_axis(layer: Layer, found: dict[str, Floats]) -> dict[str, Floats]:
    """Take the gate axis of length 1 away again where the layer has no gates."""
    if layer.kind != "simple_rnn":
        return found
    return {name: values[..., 0, :] if name in GATED else values for name, values in found.items()}
