"""How often the intervals of a diagnosis hold the truth, on simulated data: about 95 times in 100.

Run: python benchmarks/science/coverage.py
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from throughtime._batch import Batch
from throughtime.diagnosis.statistics import censored_median_interval, interval
from throughtime.diagnosis.swap import Reading, prefix_swap
from throughtime.diagnosis.use import use
from throughtime.diagnostics import lag_profile

EXPERIMENTS = 1000


def median_ratio(samples: int) -> float:
    """Cover the median log ratio: columns of one profile, each an experiment with the median 1."""
    gradient = np.exp(np.random.default_rng(0).normal(size=(samples, EXPERIMENTS + 1, 1)))
    gradient[:, -1] = 1.0
    layer = xr.Dataset({"hidden_gradient": (("sample", "time", "unit"), gradient)}, attrs={"kind": "gru"})
    found = lag_profile(layer).sel(lag=slice(1, None))
    return float(((found["low"] <= 1) & (found["high"] >= 1)).mean())


def horizons(samples: int) -> tuple[float, float]:
    """Cover the median of censored horizons, by Kaplan-Meier and by taking the bounds for the horizons."""
    rng, truth, covered = np.random.default_rng(1), 20.0, np.zeros(2)
    for seed in range(EXPERIMENTS):
        lengths = rng.exponential(truth / np.log(2), size=samples)
        ends = rng.uniform(5, 25, size=samples)
        seen, ended = np.minimum(lengths, ends), lengths > ends
        found = censored_median_interval(seen, ended, seed=seed), interval(np.median, seen, seed=seed)
        covered += [low <= truth <= high for low, high in found]
    return tuple(covered / EXPERIMENTS)


def used(samples: int) -> float:
    """Cover U of a model that reads x_5 and, a third as strongly, x_1, by the whole swap."""
    weights, covered = np.array([0.0, 1 / 3, 0, 0, 0, 1.0]), 0

    class Losing:
        def losses(self, x, y, *, sample_weight, step):
            return (x @ weights - y) ** 2

    for seed in range(EXPERIMENTS):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(samples, len(weights)))
        y = x @ weights + rng.normal(size=samples)
        reading = Reading(np.ones(x.shape, bool), frozenset({"forward"}))
        swapped = prefix_swap(Losing(), Batch(x, y, None, ""), reading, [3], seed=seed)
        low, high = use(swapped, 3, seed=seed).interval
        covered += low <= 0.1 <= high
    return covered / EXPERIMENTS


def main() -> None:
    print("samples  median log ratio  Kaplan-Meier  naive  use")
    for samples in (16, 32, 128):
        kaplan_meier, naive = horizons(samples)
        told = (median_ratio(samples), kaplan_meier, naive, used(samples))
        print(f"{samples:7}  {told[0]:16.3f}  {told[1]:12.3f}  {told[2]:5.3f}  {told[3]:.3f}")


if __name__ == "__main__":
    main()
