"""Intervals over samples: bootstrap of means and ratios, answers held against a threshold.

SciPy does the resampling; nothing here knows what is measured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import CensoredData, bootstrap, ecdf

from .findings import NAN, NO, UNCLEAR, YES

Floats = npt.NDArray[np.float64]
CONFIDENCE = 0.95
RESAMPLES = 999
_BATCH_NUMBERS = 4_000_000  # drawn at once
_FAR = 1e9  # stands for infinity, between whose values nothing can be interpolated
ROUNDING = 1e-12  # relative: a ratio that equals the threshold has reached it


def interval(statistic: Callable[..., Any], *samples: Any, seed: int) -> tuple[float, float]:
    """95 % interval of a statistic of paired samples, percentile bootstrap; NaN for fewer than two.

    Parameters
    ----------
    statistic : callable (*samples, axis)
    """
    if len(samples[0]) < 2:
        return NAN, NAN
    found = bootstrap(
        samples,
        statistic,
        paired=True,
        vectorized=True,
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        batch=max(1, _BATCH_NUMBERS // len(samples[0])),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def mean(values: Any, axis: int = -1) -> Any:
    """Mean over samples."""
    return np.mean(values, axis=axis)


def ratio_of_means(above: Any, below: Any, axis: int = -1) -> Any:
    """Mean over mean; a mean below that is 0 or less gives a very large one of the sign of the one above."""
    top, bottom = np.mean(above, axis=axis), np.mean(below, axis=axis)
    usable = bottom > 0
    return np.where(usable, top / np.where(usable, bottom, 1.0), np.sign(top) * _FAR)


def held_against(low: float, high: float, threshold: float) -> str:
    """Answer "yes" where all of an interval reaches a threshold, "no" where none of it does.

    Examples
    --------
    >>> held_against(0.02, 0.5, 0.01), held_against(0.001, 0.002, 0.01), held_against(0.001, 0.5, 0.01)
    ('yes', 'no', 'unclear')
    """
    if low >= threshold * (1 - ROUNDING):
        return YES
    return NO if high < threshold * (1 - ROUNDING) else UNCLEAR


def censored_median(lengths: Any, ended: Any) -> float:
    """Kaplan-Meier median of lengths, some of which are lower bounds; infinite where it lies beyond all."""
    lengths, ended = np.asarray(lengths, float), np.asarray(ended, bool)
    survival = ecdf(CensoredData(uncensored=lengths[~ended], right=lengths[ended])).sf
    below = survival.quantiles[survival.probabilities <= 0.5]
    return float(below[0]) if below.size else float("inf")


def censored_median_interval(lengths: Any, ended: Any, *, seed: int) -> tuple[float, float]:
    """95 % interval of the Kaplan-Meier median over samples; infinite where it lies beyond all lengths."""
    if len(lengths) < 2:
        return NAN, NAN

    def median(rows: Any) -> float:
        return min(censored_median(lengths[rows], ended[rows]), _FAR)

    found = bootstrap(
        (np.arange(len(lengths)),),
        median,
        vectorized=False,
        confidence_level=CONFIDENCE,
        n_resamples=199,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    longest = float(np.max(lengths))
    low, high = (end if end <= longest else float("inf") for end in (found.low, found.high))
    return float(low), float(high)
