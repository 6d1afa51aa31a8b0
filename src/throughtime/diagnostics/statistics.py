"""Statistics of measures: quantiles with NaN, intervals of medians and other statistics, censored medians."""

import math
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import CensoredData, binom, bootstrap, ecdf

Floats = npt.NDArray[np.float64]
CONFIDENCE = 0.95
RESAMPLES = 999
_BATCH_NUMBERS = 4_000_000  # drawn at once
_FAR = 1e9  # replaces infinity, which cannot be interpolated
_NEAR_ZERO = 1e4  # stands for |ln 0|: interpolating between infinities gives NaN


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
        # If all lengths are censored, the survival is 1 and has no interval.
        warnings.simplefilter("ignore", RuntimeWarning)
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


def median_interval(values: Floats, *, confidence: float = 0.95) -> tuple[Floats, Floats, Floats]:
    """Median over the first axis of logarithms, and the ends of its interval; NaN is ignored.

    The ends are order statistics, interpolated to the requested confidence. With too few values (fewer than
    six at 95 %) they are the smallest and the largest value, with a single one NaN. See Hettmansperger &
    Sheather (1986), Statistics & Probability Letters 4, 75.

    >>> [round(float(each), 2) for each in median_interval(np.arange(11.0))]
    [5.0, 1.92, 8.08]
    """
    ordered = np.sort(np.clip(values, -_NEAR_ZERO, _NEAR_ZERO), axis=0)  # NaN goes last
    count = (~np.isnan(ordered)).sum(axis=0)
    middle, low, high = (np.full(ordered.shape[1:], np.nan) for _ in range(3))
    for number in np.unique(count[count > 0]):
        columns = count == number
        part = ordered[:number, columns]
        middle[columns] = (part[(number - 1) // 2] + part[number // 2]) / 2
        if number > 1:
            rank, inner, weight = interval_ranks(int(number), confidence)
            low[columns] = (1 - weight) * part[rank - 1] + weight * part[inner]
            high[columns] = (1 - weight) * part[number - rank] + weight * part[number - 1 - inner]
    return middle, low, high


def interval_ranks(number: int, confidence: float = 0.95) -> tuple[int, int, float]:
    """Order statistics of the median's interval: rank of the outer one, place of the inner one, its weight.

    The ends are the values at places `rank - 1` and `number - rank` of the ordered values, and those at
    `inner` and `number - 1 - inner`, which count by the weight.

    >>> interval_ranks(5), interval_ranks(100)[0]
    ((1, 1, 0.0), 40)
    """
    rank, weight = _rank(number, confidence)
    return rank, min(rank, (number - 1) // 2), weight


@lru_cache
def _rank(number: int, confidence: float) -> tuple[int, float]:
    """Rank of the outer order statistic, and the weight of the next inner one."""
    ranks = np.arange(1, number // 2 + 1)
    covered = 1 - 2 * binom.cdf(ranks - 1, number, 0.5)
    rank = int((covered >= confidence).sum())
    if rank == 0:
        return 1, 0.0
    if rank == len(ranks):
        return rank, 0.0
    share = (covered[rank - 1] - confidence) / (covered[rank - 1] - covered[rank])
    # Hettmansperger & Sheather 1986, eq. 2.2.
    return rank, float((number - rank) * share / (rank + (number - 2 * rank) * share))
