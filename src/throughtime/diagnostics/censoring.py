"""Formats results that the window censors as text: a horizon "≥ 49", a lag that no sample reaches.

For the results of `memory_horizon`, `memory_horizon_median` and `lag_profile`.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from throughtime._arguments import captured, takes, tree
from throughtime._errors import DiagnosticError
from throughtime.diagnostics.labelled import applied


@takes(DiagnosticError, horizon=captured)
def horizon_text(horizon: xr.DataArray | xr.Dataset) -> xr.DataArray:
    """Format each horizon as "6", as "≥ 49" if the sequence ended first, or as "not measured".

    Parameters
    ----------
    horizon : result of `memory_horizon` or `memory_horizon_median`

    Returns
    -------
    DataArray of str, dims as in `horizon`

    Raises
    ------
    DiagnosticError
        An argument is not as described above.
    SchemaError
        The layer lacks a required variable, or its layout differs from that of a capture.

    Examples
    --------
    >>> from throughtime import testing
    >>> from throughtime.diagnostics import memory_horizon
    >>> horizon_text(memory_horizon(testing.decaying(rate=[0.5, 1.0]))).values.tolist()
    ['6', '≥ 49']
    """
    if "censored" not in (horizon if isinstance(horizon, xr.Dataset) else horizon.coords):
        raise DiagnosticError(
            "The horizon has no 'censored', so it could be a lower bound. Pass the unchanged result of "
            "memory_horizon or memory_horizon_median."
        )
    bound = horizon["at_least"] if isinstance(horizon, xr.Dataset) else horizon
    texts: xr.DataArray = applied(_text, bound, horizon["censored"], vectorize=True, types=[object])
    return texts.drop_vars("censored", errors="ignore")


def _text(bound: float, censored: bool) -> str:
    if np.isnan(bound):
        return "not measured"
    return f"{'≥ ' if censored else ''}{bound:g}"


@takes(DiagnosticError, profile=tree)
def ratio_text(profile: xr.Dataset, lag: int) -> str:
    """Format one lag of a profile: its ratio and interval, or why there is none.

    Parameters
    ----------
    profile : result of `lag_profile` for one direction and step
    lag : int, in timesteps

    Returns
    -------
    str

    Raises
    ------
    DiagnosticError
        The profile has directions or training steps, or does not contain this lag.
    SchemaError
        The layer lacks a required variable, or its layout differs from that of a capture.

    Examples
    --------
    >>> from throughtime import testing
    >>> from throughtime.diagnostics import lag_profile
    >>> profile = lag_profile(testing.decaying(rate=0.5, samples=4))
    >>> ratio_text(profile, 2), ratio_text(profile, 80)
    ('0.25 [0.25, 0.25] of lag 0, 4 samples', 'censored at 49: no sample is longer')
    """
    if missing := {"ratio", "low", "high", "lag", "samples", "censored"} - set(profile.variables):
        raise DiagnosticError(
            f"The profile has no {min(missing)!r}. Pass the unchanged result of lag_profile."
        )
    others = [str(dim) for dim in profile["ratio"].dims if dim != "lag"]
    if others:
        raise DiagnosticError(f"The profile has {others}. Select one with .sel or .isel first.")
    if lag not in profile["lag"].values or bool(profile["censored"].sel(lag=lag)):
        reached = profile["lag"].values[~profile["censored"].values]
        if lag < profile.attrs.get("window", 0) and lag not in profile["lag"].values:
            raise DiagnosticError(f"The profile has no lag {lag}. Compute it: lag_profile(lags=[{lag}]).")
        return f"censored at {max(reached, default=0)}: no sample is longer"
    at = profile.sel(lag=lag)
    if int(at["samples"]) == 0:
        return "not measured: no sample has a signal at lag 0"
    interval = f" [{float(at['low']):.3g}, {float(at['high']):.3g}]" if np.isfinite(at["low"]) else ""
    return f"{float(at['ratio']):.3g}{interval} of lag 0, {int(at['samples'])} samples"
