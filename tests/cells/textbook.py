"""The adjoint as a textbook has it: float64, one step at a time, nothing clever.

The reference of the fast adjoint, with which it shares the activations and the order of time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from tests.cells.one_step import Step, gates_of, gru_products, kind_of

from throughtime.cells.activations import required_activation
from throughtime.cells.layer import Floats, Layer, Mask, Pass, with_gate_axis
from throughtime.cells.quantities import GATED
from throughtime.cells.scan import Steps, arrange, final_gradients, in_input_time, output_gradient


@dataclass(frozen=True)
class StepGradient:
    """What one step of the textbook adjoint hands out, (sample, …).

    `gates` is dL/dz on the input side, `recurrent` on the recurrent side; they differ for a GRU with
    `reset_after` only. `recurrent_kernel` is dL/dU of this step, (sample, unit_from, gate, unit).
    """

    gates: Floats
    recurrent: Floats
    recurrent_kernel: Floats
    hidden_before: Floats
    cell_before: Floats | None = None
    cell: Floats | None = None


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
    each = _each_step(plain, steps)
    backs, arrived, (initial_hidden, initial_cell) = _backward(plain, passed, steps, each)
    by_time = {
        "hidden": steps.hidden[1:],
        "hidden_gradient": np.stack([hidden for hidden, _ in arrived]),
        "gate_activation": np.stack([gates_of(plain, step) for step in each]),
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


def valid_at(steps: Steps, t: int) -> Mask | None:
    """Which samples step t counts for (sample,); None for all."""
    return None if steps.valid is None else steps.valid[t]


def _each_step(layer: Layer, steps: Steps) -> list[Step]:
    """Run the forward pass: h is known, c of an LSTM is not."""
    known = list(map(Step, steps.inputs, steps.hidden[:-1]))
    if layer.kind != "lstm":
        return known

    def after(t: int, states: Sequence[Floats]) -> Sequence[Floats]:
        return [next_cell(gates_of(layer, known[t]), states[0])]

    cells = [states[0] for states in forward_scan(steps, [steps.initial_cell[0]], after)]
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
        back = _BACK[kind_of(layer)](layer, each[t], arriving[0], arriving[1])
        found.append(_or_nothing(back, valid_at(steps, t), arriving[1]))
        return back.hidden_before, arriving[1] if back.cell_before is None else back.cell_before

    arrived, before = reverse_scan(
        steps,
        output_gradient(passed, np.float64),
        [gradient[0] for gradient in final_gradients(passed, steps)],
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


def next_cell(gates: Floats, cell_before: Floats) -> Floats:
    """c_t = f·c_{t-1} + i·g."""
    i, f, g, _ = np.moveaxis(gates, -2, 0)
    after: Floats = f * cell_before + i * g
    return after


def forward_scan(
    steps: Steps, initial: Sequence[Floats], step: Callable[[int, Sequence[Floats]], Sequence[Floats]]
) -> list[Sequence[Floats]]:
    """Run states that the kernel did not emit over time and masks, before the first step and after each.

    Parameters
    ----------
    initial : sequence of ndarray (sample, width)
    step : callable
        Takes (t, states before) and returns the states after.
    """
    states = [initial]
    for t in range(steps.count):
        valid, before = valid_at(steps, t), states[-1]
        states.append([where_valid(*pair, valid) for pair in zip(step(t, before), before, strict=True)])
    return states


def reverse_scan(
    steps: Steps,
    gradient: Floats,
    final: Sequence[Floats],
    step_back: Callable[[int, Sequence[Floats]], Sequence[Floats]],
    *,
    zero_output: bool,
) -> tuple[list[Sequence[Floats]], Sequence[Floats]]:
    """Backpropagation through time over masks, for any number of states; the first one is emitted.

    Parameters
    ----------
    gradient : ndarray (time, sample, unit)
        ∂L/∂out, masked outputs included.
    final : sequence of ndarray (sample, width)
        dL/d(each state after the last step), beyond what reaches it through the output.
    step_back : callable
        Takes (t, dL/d(each state after step t)) and returns dL/d(each state before); what it returns for
        samples that are masked at t is not used.

    Returns
    -------
    list of sequences of ndarray (sample, width)
        dL/d(each state after step t), the state adjoint η itself where masked.
    sequence of ndarray (sample, width)
        dL/d(each state before the first step).
    """
    eta = final
    carry = np.zeros_like(eta[0])
    arrived: list[Sequence[Floats]] = []
    for t in range(steps.count - 1, -1, -1):
        valid = valid_at(steps, t)
        entering = gradient[t] if zero_output else gradient[t] + carry
        arriving = [where_valid(eta[0] + entering, eta[0], valid), *eta[1:]]
        before = step_back(t, arriving)
        carry = where_valid(np.zeros_like(carry), 0 if zero_output else entering, valid)
        eta = [where_valid(*pair, valid) for pair in zip(before, arriving, strict=True)]
        arrived.append(arriving)
    return arrived[::-1], eta


def where_valid(values: Floats, otherwise: Floats | float, valid: Mask | None) -> Floats:
    """Replace what a step gave for samples that are masked there: a product with 0 would keep their NaN.

    Parameters
    ----------
    values : ndarray (sample, …)
    valid : ndarray of bool (sample,) or None
    """
    if valid is None:
        return values
    return np.where(valid.reshape(-1, *(1,) * (values.ndim - 1)), values, otherwise)


def outer(hidden: Floats, gate_gradient: Floats) -> Floats:
    """h_{t-1}ᵀ dz per sample, (sample, unit_from, gate, unit)."""
    return hidden[..., :, None, None] * gate_gradient[..., None, :, :]


def through_recurrent_kernel(gate_gradient: Floats, recurrent_kernel: Floats) -> Floats:
    """Sum dz Uᵀ over gates, (…, gate, unit) to (…, unit_from)."""
    product: Floats = np.tensordot(gate_gradient, recurrent_kernel, ([-2, -1], [1, 2]))
    return product


def _lstm_back(layer: Layer, step: Step, hidden_gradient: Floats, cell_gradient: Floats) -> StepGradient:
    """Pull back; `cell` of the result is the total dL/dc_t."""
    assert step.cell is not None
    assert step.cell_before is not None
    phi, sigma = required_activation(layer.activation), required_activation(layer.recurrent_activation)
    i, f, g, o = np.moveaxis(gates_of(layer, step), -2, 0)
    squashed = phi.value(step.cell)
    # h_t = o·φ(c_t) follows c_t, so dL/dc_t has two parts.
    total = cell_gradient + hidden_gradient * o * phi.slope(squashed)
    dz = np.stack(
        [
            total * g * sigma.slope(i),
            total * step.cell_before * sigma.slope(f),
            total * i * phi.slope(g),
            hidden_gradient * squashed * sigma.slope(o),
        ],
        axis=-2,
    )
    return StepGradient(
        gates=dz,
        recurrent=dz,
        recurrent_kernel=outer(step.hidden_before, dz),
        hidden_before=through_recurrent_kernel(dz, layer.recurrent_kernel),
        cell_before=total * f,
        cell=total,
    )


def _gru_back(layer: Layer, step: Step, hidden_gradient: Floats, cell_gradient: Floats) -> StepGradient:
    """Pull back with ξ on the input side and ρ on the recurrent side."""
    sigma, phi = required_activation(layer.recurrent_activation), required_activation(layer.activation)
    activated, q = gru_products(layer, step)
    z, r, candidate = np.moveaxis(activated, -2, 0)
    a_h = hidden_gradient * (1 - z) * phi.slope(candidate)
    a_z = hidden_gradient * (step.hidden_before - candidate) * sigma.slope(z)
    a_r = a_h * q * sigma.slope(r)
    xi = np.stack([a_z, a_r, a_h], axis=-2)
    rho = np.stack([a_z, a_r, a_h * r], axis=-2)
    return StepGradient(
        gates=xi,
        recurrent=rho,
        recurrent_kernel=outer(step.hidden_before, rho),
        hidden_before=hidden_gradient * z + through_recurrent_kernel(rho, layer.recurrent_kernel),
    )


def _gru_reset_before_back(
    layer: Layer, step: Step, hidden_gradient: Floats, cell_gradient: Floats
) -> StepGradient:
    """Pull back; U_h sees r·h_{t-1}, U_z and U_r see h_{t-1}."""
    sigma, phi = required_activation(layer.recurrent_activation), required_activation(layer.activation)
    z, r, candidate = np.moveaxis(gates_of(layer, step), -2, 0)
    before, u_zr, u_h = step.hidden_before, layer.recurrent_kernel[:, :2], layer.recurrent_kernel[:, 2]
    a_h = hidden_gradient * (1 - z) * phi.slope(candidate)
    a_z = hidden_gradient * (before - candidate) * sigma.slope(z)
    p = a_h @ u_h.T
    a_r = p * before * sigma.slope(r)
    a_zr = np.stack([a_z, a_r], axis=-2)
    xi = np.stack([a_z, a_r, a_h], axis=-2)
    parts = [outer(before, a_zr), outer(r * before, a_h[..., None, :])]
    return StepGradient(
        gates=xi,
        recurrent=xi,
        recurrent_kernel=np.concatenate(parts, axis=-2),
        hidden_before=hidden_gradient * z + p * r + through_recurrent_kernel(a_zr, u_zr),
    )


def _simple_rnn_back(
    layer: Layer, step: Step, hidden_gradient: Floats, cell_gradient: Floats
) -> StepGradient:
    """Pull back: dz = δ·φ'(z); η = dz Uᵀ; dU = h_{t-1}ᵀ dz."""
    slope = required_activation(layer.activation).slope(gates_of(layer, step))
    dz = hidden_gradient[..., None, :] * slope
    return StepGradient(
        gates=dz,
        recurrent=dz,
        recurrent_kernel=outer(step.hidden_before, dz),
        hidden_before=through_recurrent_kernel(dz, layer.recurrent_kernel),
    )


_BACK = {
    "lstm": _lstm_back,
    "gru": _gru_back,
    "gru_reset_before": _gru_reset_before_back,
    "simple_rnn": _simple_rnn_back,
}
