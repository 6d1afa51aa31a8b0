"""The number of steps that make up the weight gradient: k50, k90 and N_eff, which need no threshold.

Orders `step_contribution` by lag. It shows which steps drive learning; `lag_profile` shows how far error
reaches.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from throughtime._errors import DiagnosticError
from throughtime._inputs import takes
from throughtime._tree import Layer, require
from throughtime.diagnostics.checks import certified
from throughtime.diagnostics.labelled import apply
from throughtime.diagnostics.lags import Floats, by_lag, runs_backward, steps_of_last_episode


@takes(DiagnosticError)
def effective_steps(layer: Layer) -> xr.Dataset:
    """Lags that hold 50 and 90 % of the step contributions w_t = ‖dU_(t)‖, and N_eff = (Σw)² / Σw².

    The first step has no previous state and contributes 0. Contributions are norms; in the sum dL/dU they
    may cancel, see `temporal_coherence`.

    Parameters
    ----------
    layer : one layer of a capture, with `step_contribution` (sample, time, [direction])

    Returns
    -------
    Dataset (sample, [direction]), in timesteps
        `k50`, `k90`: the smallest lag k such that lags 0 to k hold that share; `n_eff`: 1 if one step
        contributes everything, T if all contribute equally. NaN for a sample whose contributions are all 0 or
        not finite.

    Examples
    --------
    >>> from throughtime import testing
    >>> found = effective_steps(testing.decaying(rate=0.5))
    >>> float(found["k50"].item()), float(found["k90"].item()), round(found["n_eff"].item(), 6)
    (0.0, 3.0, 3.0)
    """
    captured = certified(layer)
    weights = by_lag(
        require(captured, "step_contribution"), steps_of_last_episode(captured), runs_backward(captured)
    )
    parts = apply(_concentration, weights, over=[("lag",)], returns=[()] * 3)
    return xr.Dataset(dict(zip(("k50", "k90", "n_eff"), parts, strict=True)))


def _concentration(weights: Floats) -> tuple[Floats, Floats, Floats]:
    peak = np.fmax.reduce(weights, axis=-1)
    usable = (peak > 0) & np.isfinite(peak)
    shares = np.nan_to_num(weights, nan=0.0, posinf=0.0) / np.where(usable, peak, 1.0)[..., None]
    cumulated = np.cumsum(shares, axis=-1)
    total = cumulated[..., -1]
    # A share counts as reached within rounding: nine of ten equal steps hold 0.9·Σ.
    k50, k90 = (
        np.argmax(cumulated >= (share - 1e-12) * total[..., None], axis=-1).astype(float)
        for share in (0.5, 0.9)
    )
    squares = np.sum(shares**2, axis=-1)
    effective = total**2 / np.where(usable, squares, 1.0)
    k50, k90, effective = (np.where(usable, each, np.nan) for each in (k50, k90, effective))
    return k50, k90, effective
