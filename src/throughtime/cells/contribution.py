"""`step_contribution` from gate gradients that were not computed by `adjoint`."""

from __future__ import annotations

import numpy as np

from .layer import Floats
from .steps import squared_norm

RESET, CANDIDATE = 1, 2


def step_contribution(
    hidden_before: Floats,
    gate_gradient: Floats,
    gates: Floats | None = None,
    *,
    kind: str,
    reset_after: bool = True,
) -> Floats:
    """‖dL/dU_(t)‖ per sample and step: each gate's share of dU is an outer product.

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
