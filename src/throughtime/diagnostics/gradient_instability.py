"""The deviation of a recurrence from carrying gradient unchanged: Ω, Pascanu's regularisation term.

Compares the captured gradients of consecutive steps; `decay_rate` returns the mean of the same ratios.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from throughtime._errors import DiagnosticError
from throughtime._inputs import takes
from throughtime._tree import Layer, require, states
from throughtime.diagnostics.checks import certified, require_unchanged
from throughtime.diagnostics.labelled import apply
from throughtime.diagnostics.lags import (
    Floats,
    by_lag,
    log_state_gradient,
    runs_backward,
    steps_of_last_episode,
)


@takes(DiagnosticError)
def gradient_instability(layer: Layer) -> xr.DataArray:
    """Sum over steps of (‖δ_{k+1} J_{k+1}‖ / ‖δ_{k+1}‖ − 1)², δ the gradient of the joint state: Ω.

    Ω is 0 if every step passes its gradient on at full length, large if gradients explode, and at most the
    number of steps if they vanish. The gradient that a per-step loss or a layer above adds at step k is not
    part of δ_{k+1} J and is subtracted first; this requires a SimpleRNN or GRU in one direction.

    Parameters
    ----------
    layer : one layer of a capture, with `hidden_gradient` (an LSTM: `cell_gradient` too)

    Returns
    -------
    DataArray (sample, [direction]), without unit
        A pair of steps that are both 0 adds 0. NaN if fewer than 2 steps are valid or one is not finite.

    Raises
    ------
    DiagnosticError
        `output_gradient` has a time axis and cannot be subtracted, as in an LSTM or with two directions; or
        the state of the cell is changed between its calls.

    References
    ----------
    Pascanu, Mikolov & Bengio (2013), On the difficulty of training recurrent neural networks, eq. 9.

    Examples
    --------
    >>> from throughtime import testing
    >>> gradient_instability(testing.decaying(rate=0.9, steps=50)).values.round(6)  # 49·0.1²
    array([0.49])
    """
    captured = require_unchanged(certified(layer))
    gradient = log_state_gradient(captured)
    valid, backward = steps_of_last_episode(captured), runs_backward(captured)
    arriving = by_lag(gradient, valid, backward)
    carried = by_lag(log_state_gradient(_subtract_entering(captured)), valid, backward)
    total: xr.DataArray = apply(_instability, arriving, carried, over=[("lag",)] * 2)
    return total.rename("gradient_instability")


def _subtract_entering(layer: xr.Dataset) -> xr.Dataset:
    """Keep in `hidden_gradient` only the part that comes from the later step."""
    entering = layer.get("output_gradient")
    if entering is None or "time" not in entering.dims:
        return layer
    if states(layer)[1:] or "direction" in layer.dims:
        raise DiagnosticError(
            "The loss enters this layer at every step. For an LSTM or two directions, the part that the "
            "recurrence carries cannot be separated. Use a loss on the last step, or read lag_matrix."
        )
    hidden = require(layer, "hidden_gradient")
    return layer.assign(
        hidden_gradient=hidden
        - entering.rename({"output_unit": "unit"} if "output_unit" in entering.dims else {})
    )


def _instability(arriving: Floats, carried: Floats) -> Floats:
    with np.errstate(over="ignore", invalid="ignore"):
        # Pascanu et al. 2013, eq. 9; lag k + 1 is the step before lag k. Two zeros add no term.
        logs = carried[..., 1:] - arriving[..., :-1]
        terms = (np.exp(logs) - 1) ** 2
    both_zero = np.isneginf(carried[..., 1:]) & np.isneginf(arriving[..., :-1])
    present = ~np.isnan(arriving[..., 1:])
    total = np.sum(np.where(both_zero | ~present, 0.0, terms), axis=-1)
    return np.where(present.any(axis=-1), total, np.nan)
