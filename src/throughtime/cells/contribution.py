"""The share of each step in the gradient of the recurrent kernel, a sum of outer products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .directions import along_directions, directions
from .layer import Floats
from .steps import Block, squared_norm

RESET, CANDIDATE = 1, 2


def step_contributions(block: Block, columns: Floats) -> Floats:
    """‖dL/dU_(t)‖ per step and sample, (time, sample), in float64: blocks of rank 1 side by side."""
    sides = columns.transpose(2, 0, 1, 3)[: len(block.recurrent)]
    squares = squared_norm(sides) * squared_norm(block.hidden_before)
    if block.reset_hidden is not None:
        squares[2] = squared_norm(sides[2]) * squared_norm(block.reset_hidden)
    total: Floats = np.sqrt(squares.sum(0))
    return total


@np.errstate(invalid="ignore", over="ignore")  # values that are not finite remain
def on_recurrent_side(
    hidden_before: Floats, gate_gradient: Floats, gates: Floats | None, *, kind: str, reset_after: bool
) -> tuple[Floats, Floats]:
    """Return h_{t-1} and ρ of dL/dU_(t) = h_{t-1}ᵀ ρ_t, (sample, time, gate, unit).

    Gate gradients dz are (sample, time, [gate,] unit). ρ = dz, but for a GRU's candidate ρ = r·dz, or
    h = r·h_{t-1} where it resets before the product. One h_{t-1} serves all gates, but with dropout
    `hidden_before` has another one for each.
    """
    if kind == "simple_rnn":
        hidden_before, gate_gradient = hidden_before[..., None, :], gate_gradient[..., None, :]
    elif hidden_before.ndim < gate_gradient.ndim:
        hidden_before = hidden_before[..., None, :]
    if kind == "gru" and gates is not None:
        if reset_after:
            gate_gradient = gate_gradient.copy(order="K")
            gate_gradient[..., CANDIDATE, :] *= gates[..., RESET, :]
        else:
            reset = np.ones_like(gate_gradient)
            reset[..., CANDIDATE, :] = gates[..., RESET, :]
            hidden_before = hidden_before * reset
    return hidden_before, gate_gradient


@np.errstate(invalid="ignore", over="ignore")
def step_contribution(hidden_before: Floats, recurrent: Floats) -> Floats:
    """‖dL/dU_(t)‖ (sample, time) = √(Σ_gates ‖h_{t-1}‖²·‖ρ‖²), from what `on_recurrent_side` returns."""
    squares = squared_norm(hidden_before) * squared_norm(recurrent)
    contribution: Floats = np.sqrt(squares.sum(-1)).astype(recurrent.dtype)
    return contribution


def sums_along(
    solved: Mapping[str, Floats], hidden_before: Floats, recurrent: Floats, kernel: Floats
) -> dict[str, Floats]:
    """Add up what steps contribute, from inputs and gradients of gates as `solve` names them.

    Kernels and inputs are as `along_directions` gives them, h_{t-1} and ρ as `on_recurrent_side` does.
    """
    gate_gradient = solved["gate_gradient"]
    own, shape = gate_gradient.reshape(recurrent.shape), (-1, *gate_gradient.shape[2:])
    entering = along_directions(kernel).reshape(-1, gate_gradient[0, 0].size).T
    inputs, shares = solved["input"][:, :, None], recurrent is gate_gradient and hidden_before.shape[2] == 1
    of_inputs, *others, bias = _sums([inputs, hidden_before] if shares else [inputs], own)
    of_hidden, recurrent_bias = (*others, bias) if shares else _sums([hidden_before], recurrent)
    return {
        "kernel_gradient": of_inputs.reshape(shape),
        "recurrent_kernel_gradient": of_hidden.reshape(shape),
        "bias_gradient": bias.reshape(shape[1:]),
        "recurrent_bias_gradient": recurrent_bias.reshape(shape[1:]),
        "input_gradient": (_by_time(gate_gradient) @ entering).swapaxes(0, 1),
    }


def _sums(sides: Sequence[Floats], right: Floats) -> list[Floats]:
    """Σ over samples and steps of (left R)ᵀ right for each left side, (direction, gate, unit), and of right.

    A left side has all gates, or one; one product reads the right side for all.
    """
    if sides[0].shape[2] > 1:
        gates = range(right.shape[2])
        each = [_sums([left[:, :, [k]] for left in sides], right[:, :, [k]]) for k in gates]
        return [np.concatenate(parts, axis=1) for parts in zip(*each, strict=True)]
    thin = [
        _by_time(left) @ directions(left.shape[-1]).astype(np.result_type(left, np.float32)) for left in sides
    ]
    joined = np.concatenate([*thin, np.ones((*thin[0].shape[:2], 1), thin[0].dtype)], axis=2)
    found: Floats = (joined.swapaxes(1, 2) @ _by_time(right)).sum(0, dtype=np.float64)
    ends = np.cumsum([one.shape[2] for one in thin])
    return [part.reshape(-1, *right.shape[2:]) for part in np.split(found, ends)]


def _by_time(array: Floats) -> Floats:
    """(sample, time, …) to (time, sample, all others); no copy where an array has its steps outermost."""
    return array.swapaxes(0, 1).reshape(array.shape[1], array.shape[0], -1)
