"""The share of samples whose signal has vanished k steps back, by kind.

Reads the ratios of `lags.signals`; floating-point underflow is separated from an exact zero.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from throughtime._errors import DiagnosticError
from throughtime._inputs import takes
from throughtime._inputs.rules import number
from throughtime._tree import Layer
from throughtime.diagnostics.checks import certified, precision
from throughtime.diagnostics.lags import exclusions, has_underflowed, signals
from throughtime.diagnostics.thresholds import REACHES, ROUNDING


@takes(DiagnosticError, threshold=number(0, 1, inside=True))
def vanishing_fraction(layer: Layer, *, threshold: float = REACHES) -> xr.Dataset:
    """Share of samples whose gradient at lag k is below a fraction of its value at lag 0.

    The second threshold, eps/2 of the dtype (2⁻²⁴ in float32), follows from arithmetic: adding a smaller
    signal to that at lag 0 does not change it.

    Parameters
    ----------
    layer : one layer of a capture, with `hidden_gradient` (an LSTM: `cell_gradient` too) or `lag_matrix`
    threshold : float in (0, 1)
        0.01 is a convention.

    Returns
    -------
    Dataset (lag, [direction]), shares of the `samples` that reach the lag; NaN if none does
        `vanished`: below `threshold`; `below_precision`: below eps/2; `underflow`: below the smallest normal
        number of the dtype, or 0 directly after such a value; `zero`: exactly 0 without underflow.
        `no_steps`, `no_signal`, `non_finite` count excluded samples.

    Examples
    --------
    >>> from throughtime import testing
    >>> lost = vanishing_fraction(testing.decaying(rate=[0.5, 0.9]))
    >>> lost["vanished"].sel(lag=[6, 7, 44]).values
    array([0. , 0.5, 1. ])
    """
    captured = certified(layer)
    limits, found = precision(captured), signals(captured)
    ratio = found["log_ratio"]
    measured = ratio.notnull()
    samples = measured.sum("sample")
    small = has_underflowed(found["log_signal"], limits.smallest_normal)
    lost = {
        "vanished": ratio < np.log(threshold) - ROUNDING,
        "below_precision": ratio < np.log(limits.epsilon / 2) - ROUNDING,
        "underflow": small,
        "zero": (ratio == -np.inf) & ~small,
    }
    shares = {
        name: (each & measured).sum("sample") / samples.where(samples > 0) for name, each in lost.items()
    }
    result = xr.Dataset({**shares, "samples": samples, **exclusions(found)})
    return result.assign_attrs(basis=found.attrs["basis"], threshold=threshold)
