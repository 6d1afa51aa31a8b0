"""The share of each step in the gradient of the recurrent kernel, a sum of outer products."""

from __future__ import annotations

import numpy as np

from .layer import Floats
from .steps import Block, squared_norm

RESET, CANDIDATE = 1, 2


def step_contributions(block: Block, columns: Floats) -> Floats:
    """‖dL/dU_(t)‖ per step and sample, (time, sample), in float64: blocks of rank 1 side by side."""
    on_recurrent_side = columns[:, :, : len(block.recurrent) // columns.shape[-1]]
    squares = squared_norm(on_recurrent_side) * squared_norm(block.hidden_before)[..., None]
    if block.reset_hidden is not None:
        squares[..., 2] = squared_norm(columns[:, :, 2]) * squared_norm(block.reset_hidden)
    total: Floats = np.sqrt(squares.sum(-1))
    return total


@np.errstate(invalid="ignore", over="ignore")  # values that are not finite remain
def step_contribution(
    hidden_before: Floats,
    gate_gradient: Floats,
    gates: Floats | None = None,
    *,
    kind: str,
    reset_after: bool = True,
) -> Floats:
    """‖dL/dU_(t)‖ (sample, time), from gate gradients (sample, time, [gate,] unit) of another source.

    √(Σ_gates ‖h_{t-1}‖²·‖ρ‖²) with ρ = dz, but for a GRU's candidate ρ = r·dz, or h = r·h_{t-1} where it
    resets before the product. With dropout `hidden_before` is another one for each gate, (sample, time, gate,
    unit).
    """
    if kind == "simple_rnn":
        hidden_before, gate_gradient = hidden_before[..., None, :], gate_gradient[..., None, :]
    elif hidden_before.ndim < gate_gradient.ndim:
        hidden_before = hidden_before[..., None, :]
    if kind == "gru" and gates is not None:
        reset = np.ones_like(gate_gradient)
        reset[..., CANDIDATE, :] = gates[..., RESET, :]
        if reset_after:
            gate_gradient = gate_gradient * reset
        else:
            hidden_before = hidden_before * reset
    squares = squared_norm(hidden_before) * squared_norm(gate_gradient)
    contribution: Floats = np.sqrt(squares.sum(-1)).astype(gate_gradient.dtype)
    return contribution
