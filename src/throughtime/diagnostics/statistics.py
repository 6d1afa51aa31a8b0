"""Intervals over samples: one bootstrap, and the Kaplan-Meier median of lengths that may be lower bounds.

SciPy computes both; this module is independent of the measures.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import CensoredData, bootstrap, ecdf

Floats = npt.NDArray[np.float64]
CONFIDENCE = 0.95
RESAMPLES = 999
_BATCH_NUMBERS = 4_000_000  # drawn at once
_FAR = 1e9  # replaces infinity, which cannot be interpolated


def interval(
    statistic: Callable[..., Any],
    *samples: Any,
    seed: int,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    vectorized: bool = True,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic of paired samples; NaN for fewer than two samples.

    The statistic takes (*samples, axis), or (*samples) where it is not vectorized.
    """
    if len(samples[0]) < 2:
        return math.nan, math.nan
    found = bootstrap(
        samples,
        statistic,
        paired=len(samples) > 1,
        vectorized=vectorized,
        confidence_level=confidence,
        n_resamples=resamples,
        batch=max(1, _BATCH_NUMBERS // len(samples[0])),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def ratio_of_means(above: Any, below: Any, axis: int = -1) -> Any:
    """Ratio of two means; if the denominator is 0 or less, a very large number with the numerator's sign."""
    top, bottom = np.mean(above, axis=axis), np.mean(below, axis=axis)
    usable = bottom > 0
    return np.where(usable, top / np.where(usable, bottom, 1.0), np.sign(top) * _FAR)


def quantiles(values: Any, shares: Sequence[float], axis: int = 0) -> Floats:
    """Quantiles along an axis of the values that are not NaN, (share, …); infinities remain infinite.

    Examples
    --------
    >>> quantiles([[1.0, np.nan], [3.0, np.nan]], (0.0, 0.5))
    array([[ 1., nan],
           [ 2., nan]])
    """
    # One sort for all of them: np.nanquantile goes column by column. NaN is last.
    ordered = np.sort(np.moveaxis(np.asarray(values, np.float64), axis, 0), axis=0)
    last = np.maximum((~np.isnan(ordered)).sum(axis=0) - 1, 0)
    found = []
    for share in shares:
        place = share * last
        ends = (np.floor(place).astype(int), np.ceil(place).astype(int))
        low, high = (np.take_along_axis(ordered, each[None], axis=0)[0] for each in ends)
        with np.errstate(invalid="ignore"):
            between = low * (1 - (place - ends[0])) + high * (place - ends[0])
        found.append(np.where(low == high, low, between))
    return np.array(found)


def censored_median(lengths: Any, ended: Any) -> float:
    """Kaplan-Meier median of lengths, some of which are lower bounds; infinite if it exceeds all lengths."""
    survival = _survival(lengths, ended)
    return _first_half(survival.quantiles, survival.probabilities)


def censored_median_interval(lengths: Any, ended: Any) -> tuple[float, float]:
    """95 % interval of the Kaplan-Meier median; infinite if an end exceeds all lengths.

    It consists of the lengths at which the log-log interval of the survival contains one half (Brookmeyer &
    Crowley 1982, A confidence interval for the median survival time).
    """
    if len(lengths) < 2:
        return math.nan, math.nan
    survival = _survival(lengths, ended)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # if all lengths are censored, the survival is 1 and has no interval
        ends = survival.confidence_interval(CONFIDENCE, method="log-log")
    known = survival.probabilities
    low, high = (
        _first_half(survival.quantiles, np.where(np.isnan(end.probabilities), known, end.probabilities))
        for end in (ends.low, ends.high)
    )
    return low, high


def _survival(lengths: Any, ended: Any) -> Any:
    lengths, ended = np.asarray(lengths, float), np.asarray(ended, bool)
    return ecdf(CensoredData(uncensored=lengths[~ended], right=lengths[ended])).sf


def _first_half(lengths: Floats, survival: Floats) -> float:
    """Return the first length that at most half of all lengths exceed."""
    below = lengths[survival <= 0.5]
    return float(below[0]) if below.size else math.inf
