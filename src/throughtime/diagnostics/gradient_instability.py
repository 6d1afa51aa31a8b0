"""How far the recurrence is from carrying gradient unchanged: Ω, Pascanu's regularisation term.

Works on the captured gradients, step against next step; `decay_rate` gives the mean of the same ratios.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from throughtime._arguments import takes
from throughtime._errors import DiagnosticError
from throughtime._tree import Layer, require, states
from throughtime.diagnostics.checks import certified, unchanged
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

    0 where every step hands its gradient on at full length, large where it explodes, at most the number of
    steps where it vanishes. What a per-step loss, or a layer above, adds at step k is no part of δ_{k+1} J,
    so it is taken off first; with such sources that needs a SimpleRNN or GRU in one direction.

    Parameters
    ----------
    layer : one layer of a capture, with `hidden_gradient` (an LSTM: `cell_gradient` too)

    Returns
    -------
    DataArray (sample, [direction]), without unit
        A pair of steps both at 0 counts nothing; NaN where fewer than 2 steps are valid or one is not finite.

    Raises
    ------
    DiagnosticError
        `output_gradient` has a time axis and cannot be taken off: LSTM, two directions. Or it is a cell
        whose state is changed between its calls.
    SchemaError
        The layer lacks a variable that is needed, or is not laid out as in a capture.

    References
    ----------
    Pascanu, Mikolov & Bengio (2013), On the difficulty of training recurrent neural networks, eq. 9.

    Examples
    --------
    >>> from throughtime import testing
    >>> gradient_instability(testing.decaying(rate=0.9, steps=50)).values.round(6)  # 49·0.1²
    array([0.49])
    """
    captured = unchanged(certified(layer))
    gradient = log_state_gradient(captured)
    valid, backward = steps_of_last_episode(captured), runs_backward(captured)
    arriving = by_lag(gradient, valid, backward)
    carried = by_lag(log_state_gradient(_without_entering(captured)), valid, backward)
    total: xr.DataArray = xr.apply_ufunc(
        _instability,
        arriving,
        carried,
        input_core_dims=[["lag"], ["lag"]],
        dask="parallelized",
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={"allow_rechunk": True},
    )
    return total.rename("gradient_instability")


def _without_entering(layer: xr.Dataset) -> xr.Dataset:
    """Leave in `hidden_gradient` only what the later step sent."""
    entering = layer.get("output_gradient")
    if entering is None or "time" not in entering.dims:
        return layer
    if states(layer)[1:] or "direction" in layer.dims:
        raise DiagnosticError(
            "The loss enters this layer at every step, and for an LSTM or two directions the part that the "
            "recurrence carries cannot be told apart. Use a loss on the last step, or read lag_matrix."
        )
    hidden = require(layer, "hidden_gradient")
    return layer.assign(
        hidden_gradient=hidden
        - entering.rename({"output_unit": "unit"} if "output_unit" in entering.dims else {})
    )


def _instability(arriving: Floats, carried: Floats) -> Floats:
    with np.errstate(over="ignore", invalid="ignore"):
        # Pascanu et al. 2013, eq. 9; lag k + 1 is the step before lag k. Nothing to hand on: no term.
        logs = carried[..., 1:] - arriving[..., :-1]
        terms = (np.exp(logs) - 1) ** 2
    both_zero = np.isneginf(carried[..., 1:]) & np.isneginf(arriving[..., :-1])
    present = ~np.isnan(arriving[..., 1:])
    total = np.sum(np.where(both_zero | ~present, 0.0, terms), axis=-1)
    return np.where(present.any(axis=-1), total, np.nan)
