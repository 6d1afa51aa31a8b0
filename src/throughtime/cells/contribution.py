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


def step_contribution(
    hidden_before: Floats,
    gate_gradient: Floats,
    gates: Floats | None = None,
    *,
    kind: str,
    reset_after: bool = True,
) -> Floats:
    """‖dL/dU_(t)‖ per sample and step, from gate gradients that `adjoint` did not compute.

    Parameters
    ----------
    hidden_before : ndarray (sample, time, unit) or (sample, time, gate, unit)
        Factor of the recurrent kernel: h_{t-1}, with dropout a different one for each gate.
    gate_gradient : ndarray (sample, time, [gate,] unit)
        dL/dz on the input side.
    gates : ndarray (sample, time, gate, unit), optional
        Activations; a GRU needs its reset gate.
    kind : {"lstm", "gru", "simple_rnn"}
    reset_after : bool
        Whether the reset gate of a GRU acts on the product, not on h_{t-1} before it.

    Returns
    -------
    ndarray (sample, time)
        √(Σ_gates ‖h_{t-1}‖²·‖ρ‖²) with ρ = dz, but for a GRU's candidate ρ = r·dz, or h = r·h_{t-1}.

    Examples
    --------
    >>> import numpy as np
    >>> step_contribution(np.full((1, 1, 4), 0.5), np.full((1, 1, 4), 3.0), kind="simple_rnn")
    array([[6.]])
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
