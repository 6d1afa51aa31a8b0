"""`Sketch`: counts of values in bins of equal relative width, from which quantiles follow.

Sketches of parts add up to exactly the sketch of the whole, in any order. Kept libraries sketch one stream of
numbers, one number at a time in Python; a capture has thousands of streams, one a timestep or lag.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from throughtime.diagnostics.statistics import interval_ranks

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]
ACCURACY = 0.005  # relative error of every quantile
_WIDTH = float(np.log((1 + ACCURACY) / (1 - ACCURACY)))
_CENTRE = float(np.log(2 / (1 + np.exp(_WIDTH))))  # of a bin, from its upper end
_END = 2**20  # number of the bin of infinity; that of 0 is -_END
_STRIDE = 2**22  # bins a position


@dataclass(frozen=True)
class Sketch:
    """Counts of positive values over the samples, for each position of an array.

    `shape` is that of one sample. The sorted `keys` are the number of the position times 2²² plus that of the
    bin, and `counts` the values in these bins. See Masson, Rim & Lee (2019), DDSketch, Proc. VLDB Endowment
    12, 2195, for the bins and their error.

    >>> values = np.arange(1.0, 1001.0)[:, None]
    >>> parts = [Sketch.of(np.log(values[:300])), Sketch.of(np.log(values[300:]))]
    >>> whole = parts[0] + parts[1]
    >>> bool(abs(np.exp(whole.quantile(0.5)) / 500 - 1) <= ACCURACY), whole.samples
    (True, array([1000]))
    """

    shape: tuple[int, ...]
    keys: Whole
    counts: Whole

    @classmethod
    def of(cls, logarithms: Floats) -> Sketch:
        """Sketch values given as natural logarithms, (sample, …); NaN is not counted."""
        samples, *shape = logarithms.shape
        flat = logarithms.reshape(samples, -1)
        known = ~np.isnan(flat)
        with np.errstate(invalid="ignore"):
            bins = np.clip(np.ceil(np.where(known, flat, 0.0) / _WIDTH), -_END, _END).astype(np.int64)
        keys = bins + np.arange(flat.shape[1]) * _STRIDE + _END
        found, counts = np.unique(keys[known], return_counts=True)
        return cls(tuple(shape), found, counts.astype(np.int64))

    def __add__(self, other: Sketch) -> Sketch:
        keys = np.concatenate([self.keys, other.keys])
        if not len(keys):
            return self
        order = np.argsort(keys, kind="stable")  # merges two sorted runs
        keys, counts = keys[order], np.concatenate([self.counts, other.counts])[order]
        first = np.flatnonzero(np.diff(keys, prepend=-1))
        return Sketch(self.shape, keys[first], np.add.reduceat(counts, first))

    @cached_property
    def samples(self) -> Whole:
        """Number of values counted at each position."""
        totals = np.zeros(int(np.prod(self.shape)), np.int64)
        np.add.at(totals, self.keys // _STRIDE, self.counts)
        return totals.reshape(self.shape)

    def at_rank(self, ranks: npt.ArrayLike, *, spread: bool = False) -> Floats:
        """Logarithm of the value that has this many values below it; NaN at a position without values.

        `ranks`, of the sketch's shape, count from 0. With `spread` the values of a bin are spread evenly over
        it; otherwise each is at the bin's centre, which is never further than `ACCURACY` away.
        """
        totals = self.samples.ravel()
        before = np.cumsum(totals) - totals
        if not len(self.keys):
            return np.full(self.shape, np.nan)
        wanted = before + np.broadcast_to(np.asarray(ranks, np.int64), self.shape).ravel()
        through = np.cumsum(self.counts)
        found = np.minimum(np.searchsorted(through, wanted, side="right"), len(self.keys) - 1)
        numbers = self.keys[found] % _STRIDE - _END
        left = (through[found] - wanted - 0.5) / self.counts[found]  # share of the bin above the value
        values = numbers * _WIDTH + (-left * _WIDTH if spread else _CENTRE)
        values = np.where(np.abs(numbers) == _END, np.copysign(np.inf, numbers), values)
        return np.asarray(np.where(totals > 0, values, np.nan)).reshape(self.shape)

    def quantile(self, fraction: float) -> Floats:
        """Logarithm of a quantile at each position: the value at or below it."""
        return self.at_rank(np.floor(fraction * np.maximum(self.samples - 1, 0)))

    def median_interval(self) -> tuple[Floats, Floats, Floats]:
        """Logarithms of the median and of the ends of its 95 % interval, as `median_interval` of values.

        The ends are those of values spread evenly over their bins: of many samples, the interval is narrower
        than a bin. It contains the median.
        """
        middle = _between(self.at_rank((self.samples - 1) // 2), self.at_rank(self.samples // 2), 0.5)
        low, high = np.full(self.shape, np.nan), np.full(self.shape, np.nan)
        for number in np.unique(self.samples[self.samples > 1]):
            rank, inner, weight = interval_ranks(int(number))
            columns = self.samples == number
            ranks = (rank - 1, inner, number - rank, number - 1 - inner)
            ends = [self.at_rank(each, spread=True) for each in ranks]
            low[columns] = _between(ends[0], ends[1], weight)[columns]
            high[columns] = _between(ends[2], ends[3], weight)[columns]
        return middle, np.minimum(low, middle), np.maximum(high, middle)


def _between(outer: Floats, inner: Floats, weight: float) -> Floats:
    """Interpolate; two equal infinities give the same infinity."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(outer == inner, outer, (1 - weight) * outer + weight * inner))
