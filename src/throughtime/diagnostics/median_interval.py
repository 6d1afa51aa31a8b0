"""Interval of a median from order statistics: exact for any distribution, without resampling.

It needs only NumPy and the binomial distribution, so a monitor can compute it at each record.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.stats import binom

from .lags import Floats

_NEAR_ZERO = 1e4  # stands for |ln 0|: interpolating between infinities gives NaN


def median_interval(values: Floats, *, confidence: float = 0.95) -> tuple[Floats, Floats, Floats]:
    """Median over the first axis of logarithms, and the ends of its interval; NaN is ignored.

    The ends are order statistics, interpolated to the requested confidence. With too few values (fewer than
    six at 95 %) they are the smallest and the largest value, with a single one NaN. See Hettmansperger &
    Sheather (1986), Statistics & Probability Letters 4, 75.

    Examples
    --------
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

    Examples
    --------
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
