"""The decay rate of the error signal per step back: the slope of ln R(k), and how well a slope fits.

Fits the median profile of `lag_profile`; a negative rate decays, a positive rate explodes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.stats import theilslopes

from throughtime._errors import DiagnosticError
from throughtime._inputs import takes
from throughtime._inputs.rules import number, whole
from throughtime._tree import Layer
from throughtime.diagnostics.checks import certified, precision
from throughtime.diagnostics.labelled import apply
from throughtime.diagnostics.lags import Flags, Floats, exclusions, has_underflowed, signals
from throughtime.diagnostics.statistics import interval, quantiles

_MOST_LAGS = 100  # evenly spaced lags in a fit, whose cost grows with their square
_RESULTS = ("rate", "low", "high", "residual", "lags", "exponential")


@takes(DiagnosticError, first_lag=whole(0), confidence=number(0, 1, inside=True))
def decay_rate(
    layer: Layer, *, first_lag: int = 5, confidence: float = 0.95, resamples: int = 199, seed: int = 0
) -> xr.Dataset:
    """Rate λ at which the error signal falls or grows, ln R(k) ≈ λ·k: Theil-Sen slope over lags k ≥ 5.

    A lag enters the fit if at least half of the measured samples reach it, unless half of them have
    underflowed or are 0 there: such ratios reflect the number format.

    Parameters
    ----------
    layer : one layer of a capture, with `hidden_gradient` (an LSTM: `cell_gradient` too) or `lag_matrix`
    first_lag : int
        First lag of the fit; earlier lags reflect the read-out.
    confidence : float in (0, 1)
        Level of the interval `low`, `high`: percentile bootstrap over samples; NaN for a single sample.
    resamples, seed : int

    Returns
    -------
    Dataset ([direction])
        `rate`, `low`, `high`: per timestep, NaN with fewer than 3 lags; `lags`: number of lags in the fit;
        `residual`: median distance of ln R from the line; `exponential`: False if that exceeds 5 % of the
        line's fall and 0.05, so that no rate describes the decay. Excluded samples are counted by reason.

    Examples
    --------
    >>> from throughtime import testing
    >>> found = decay_rate(testing.decaying(rate=0.5))
    >>> round(float(found["rate"]), 6), bool(found["exponential"])  # ln 0.5
    (-0.693147, True)
    """
    captured = certified(layer)
    found = signals(captured)
    parts = apply(
        _fit,
        found["log_ratio"],
        has_underflowed(found["log_signal"], precision(captured).smallest_normal),
        over=[("sample", "lag")] * 2,
        returns=[()] * len(_RESULTS),
        types=[np.float64] * 4 + [np.int64, np.bool_],
        vectorize=True,
        first_lag=first_lag,
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )
    fitted = xr.Dataset(dict(zip(_RESULTS, parts, strict=True)))
    return fitted.assign(exclusions(found)).assign_attrs(basis=found.attrs["basis"], first_lag=first_lag)


def _fit(
    ratios: Floats, small: Flags, *, first_lag: int, confidence: float, resamples: int, seed: int
) -> tuple[float, float, float, float, int, bool]:
    places = _usable_lags(ratios, small, first_lag)
    chosen = places.astype(np.float64)
    if len(chosen) < 3:
        return np.nan, np.nan, np.nan, np.nan, len(chosen), False
    values = ratios[~np.isnan(ratios).all(axis=1)][:, places]
    profile = _median(values)
    slope, intercept, *_ = theilslopes(profile, chosen)
    residual = float(np.median(np.abs(profile - intercept - slope * chosen)))
    fall = abs(slope) * (chosen[-1] - chosen[0])
    low, high = interval(
        lambda rows: _slope(_median(values[rows]), chosen),
        np.arange(len(values)),
        seed=seed,
        confidence=confidence,
        resamples=resamples,
        vectorized=False,
    )
    return float(slope), low, high, residual, len(chosen), residual <= 0.05 * max(1.0, fall)


def _usable_lags(ratios: Floats, small: Flags, first_lag: int) -> npt.NDArray[np.intp]:
    reached = ~np.isnan(ratios)
    samples = reached.any(axis=1).sum()
    lost = (reached & (small | np.isneginf(ratios))).sum(axis=0)
    count = reached.sum(axis=0)
    usable = (count > 0) & (2 * count >= samples) & (2 * lost < count)
    lags = np.flatnonzero(usable)
    lags = lags[lags >= first_lag]
    spread = np.linspace(0, len(lags) - 1, min(len(lags), _MOST_LAGS)).round().astype(int)
    return np.asarray(lags[spread])


def _median(values: Floats) -> Floats:
    """Median over the samples that reach a lag, else NaN. Samples at 0 count as small."""
    return np.asarray(quantiles(np.where(np.isneginf(values), -1e4, values), [0.5])[0])


def _slope(profile: Floats, lags: Floats) -> float:
    seen = ~np.isnan(profile)
    if seen.sum() < 2:
        return np.nan
    return float(theilslopes(profile[seen], lags[seen])[0])
