"""The Jacobians ds_t/ds_{t-1} along a captured trajectory, for spectra and Lyapunov exponents.

The adjoint never forms them; the module of each cell has the formula.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .adjoint import replay
from .kinds import cell_of
from .layer import Floats, Layer, Pass, with_gate_axis, working_dtype
from .scan import Steps, arrange, processing_order, processing_steps
from .steps import Step


def step_jacobians(
    layer: Layer, passed: Pass, cell: Floats | None = None, *, time_steps: Sequence[int] | None = None
) -> Floats:
    """Differentiate the state after each step by the state before it.

    Parameters
    ----------
    layer : Layer
    passed : Pass
        Its gradients are not used.
    cell : ndarray (sample, time, unit), optional
        An LSTM's c after each step, as `solve` returns it; avoids the replay.
    time_steps : sequence of int, optional
        Steps in input time, by default all; the result has state² numbers for each sample and step.

    Returns
    -------
    ndarray (sample, time, state, state)
        Rows new, columns old, so that η_{t-1} = η_t J; the identity at masked steps. The state is h, for
        an LSTM h and c after one another. For a layer that runs backward, "before" step t is t + 1 in
        input time.
    """
    dtype = working_dtype(passed)
    prepared, steps = with_gate_axis(layer, dtype), arrange(passed, dtype)
    chosen = processing_steps(passed, time_steps)
    found = cell_of(layer).jacobian(prepared, _chosen_steps(prepared, passed, steps, cell, chosen))
    if steps.valid is not None:
        found[~steps.valid[chosen]] = np.eye(found.shape[-1], dtype=dtype)
    return np.swapaxes(found, 0, 1)


def _chosen_steps(layer: Layer, passed: Pass, steps: Steps, cell: Floats | None, chosen: np.ndarray) -> Step:
    inputs, hidden_before = steps.inputs[chosen], steps.hidden_before[chosen]
    if layer.kind != "lstm":
        return Step(inputs, hidden_before)
    if cell is None:
        later = replay(layer, steps).cell
        assert later is not None
    else:
        later = processing_order(cell, passed)
    states = np.concatenate([steps.initial_cell, np.asarray(later, steps.hidden.dtype)])
    return Step(inputs, hidden_before, states[chosen], states[chosen + 1])
