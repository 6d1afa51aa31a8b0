"""How long each unit's gate lets it remember: τ from the forget gate (LSTM) or the update gate (GRU).

Read off the gates alone; what the gradient does with it is `lag_profile`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from throughtime._arguments import takes
from throughtime._errors import DiagnosticError
from throughtime._tree import Layer, require
from throughtime.diagnostics.checks import certified
from throughtime.diagnostics.lags import Flags, Floats, valid_steps

_KEEPS = {"lstm": "forget", "gru": "update", "conv_lstm": "forget"}


@takes(DiagnosticError)
def timescale(layer: Layer) -> xr.DataArray:
    """Time constant of each unit, τ = −1 / mean ln f, over all valid steps of all samples.

    The mean is that of ln f, not −1/ln of the mean of f: one step at f = 0 forgets all. The half-life is
    τ·ln 2. A gate that keeps is one path of several: through U a unit can remember longer, or shorter
    where the other units overwrite it (Ohno 2021). An update gate keeps where it is near 1.

    Parameters
    ----------
    layer : one LSTM or GRU of a capture, with `gate_activation`

    Returns
    -------
    DataArray ([direction,] unit), in timesteps
        ∞ for a gate that is always 1, 0 for one that is 0 at some step. Take the maximum, the median and
        quantiles over `unit` of it.

    Raises
    ------
    DiagnosticError
        The layer has neither gate.
    SchemaError
        The layer lacks a variable that is needed, or is not laid out as in a capture.

    References
    ----------
    Mahto et al. (2021), arXiv 2009.12727; Tallec & Ollivier (2018), arXiv 1804.11188; for the limits
    Ohno (2021), arXiv 2111.03282.

    Examples
    --------
    >>> from throughtime import testing
    >>> timescale(testing.constant_gates()).values.round(4)
    array([3.1922, 3.1922, 3.1922, 3.1922])
    """
    captured = certified(layer)
    kind = str(captured.attrs.get("kind"))
    if kind not in _KEEPS:
        raise DiagnosticError(
            f"A {kind} has no gate that keeps the state; timescale takes {', '.join(_KEEPS)}."
        )
    gate = require(captured, "gate_activation").sel(gate=_KEEPS[kind], drop=True)
    found: xr.DataArray = xr.apply_ufunc(
        _time_constant,
        gate,
        valid_steps(captured),
        input_core_dims=[["sample", "time"], ["sample", "time"]],
        dask="parallelized",
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={"allow_rechunk": True},
    )
    return found.rename("timescale").assign_attrs(units="timesteps", gate=_KEEPS[kind])


def _time_constant(gate: npt.NDArray[np.floating], valid: Flags) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(valid, np.log(np.abs(gate.astype(np.float64))), 0.0)
        mean = logs.sum(axis=(-2, -1)) / valid.sum(axis=(-2, -1))
        # −1/0 of a gate that is always 1 is +∞, whatever the sign of that zero.
        return np.asarray(np.where(mean == 0, np.inf, -1.0 / mean), dtype=np.float64)
