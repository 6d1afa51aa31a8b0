"""The time constant τ of each unit, from the gate that keeps it, or from how a step changes it by itself.

Reads no gradient; `lag_profile` measures that.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from throughtime._errors import DiagnosticError
from throughtime._inputs import takes
from throughtime._tree import Layer, require
from throughtime.diagnostics.checks import certified
from throughtime.diagnostics.labelled import apply
from throughtime.diagnostics.lags import Flags, Floats, valid_steps
from throughtime.diagnostics.rules import MEMORY_GATE
from throughtime.diagnostics.state_jacobian import STATES, state_jacobian


@takes(DiagnosticError)
def timescale(layer: Layer) -> xr.DataArray:
    """Time constant of each unit, τ = −1 / mean ln f, over all valid steps of all samples.

    The mean is taken over ln f, not over f: one step at f = 0 forgets everything. The half-life is τ·ln 2.
    The gate is one of several paths: through U a unit can remember longer, or for a shorter time if other
    units overwrite it (Ohno 2021). An update gate keeps the state if it is near 1.

    Parameters
    ----------
    layer : one LSTM or GRU of a capture, with `gate_activation`
        Any other cell: captured with `state_jacobian`, whose diagonal takes the place of the gate.

    Returns
    -------
    DataArray ([direction,] unit), in timesteps; attribute `gate`
        ∞ for a gate that is always 1, 0 for a gate that is 0 at some step. Summarise over `unit` with the
        maximum, the median and quantiles.

    Raises
    ------
    DiagnosticError
        The layer has neither a forget nor an update gate, nor a captured `state_jacobian`.

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
    name, gate = _share_kept(captured)
    steps = [("sample", "time")] * 2
    found: xr.DataArray = apply(_time_constant, gate, valid_steps(captured), over=steps)
    return found.rename("timescale").assign_attrs(units="timesteps", gate=name)


def _share_kept(captured: xr.Dataset) -> tuple[str, xr.DataArray]:
    """Return the share of each unit that a step keeps, (sample, time, [direction,] unit), and its name."""
    kind = str(captured.attrs.get("kind"))
    if gate := MEMORY_GATE.get(kind):
        return gate, require(captured, "gate_activation").sel(gate=gate, drop=True)
    if "state_jacobian" not in captured:
        raise DiagnosticError(
            f"A {kind} has no gate that keeps the state; timescale supports {', '.join(MEMORY_GATE)}, and "
            "any cell that was captured with quantities=['all', 'state_jacobian']."
        )
    jacobian = state_jacobian(captured)
    own = xr.DataArray(np.arange(jacobian.sizes["state_unit"]), dims="unit")
    return "diagonal of the step Jacobian", jacobian.isel(dict.fromkeys(STATES, own))


def _time_constant(gate: npt.NDArray[np.floating], valid: Flags) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(valid, np.log(np.abs(gate.astype(np.float64))), 0.0)
        mean = logs.sum(axis=(-2, -1)) / valid.sum(axis=(-2, -1))
        # For a gate that is always 1, −1/0 is +∞ for either sign of that zero.
        return np.asarray(np.where(mean == 0, np.inf, -1.0 / mean), dtype=np.float64)
