"""How often the intervals of a diagnosis hold the truth, on simulated data: about 95 times in 100.

Run: python benchmarks/science/coverage.py --samples 16 32 128
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import xarray as xr

from throughtime._inputs.batch import Batch
from throughtime.diagnosis.measure import share
from throughtime.diagnosis.swap import Reading, prefix_swap
from throughtime.diagnosis.use import use
from throughtime.diagnostics import lag_profile
from throughtime.diagnostics.statistics import censored_median_interval, interval

STEPS, LAG = 6, 3
Model = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (x, y) -> loss of each sample


def reach(samples: int, experiments: int) -> float:
    """Cover the median log ratio: columns of one profile, each an experiment with the median 1."""
    gradient = np.exp(np.random.default_rng(0).normal(size=(samples, experiments + 1, 1)))
    gradient[:, -1] = 1.0
    layer = xr.Dataset({"hidden_gradient": (("sample", "time", "unit"), gradient)}, attrs={"kind": "gru"})
    found = lag_profile(layer).sel(lag=slice(1, None))
    return float(((found["low"] <= 1) & (found["high"] >= 1)).mean())


def horizon(samples: int, experiments: int, *, naive: bool = False) -> float:
    """Cover the median of censored horizons, by Kaplan-Meier or by taking the bounds for the horizons."""
    rng, truth, covered = np.random.default_rng(1), 20.0, 0
    for seed in range(experiments):
        lengths = rng.exponential(truth / np.log(2), size=samples)
        ends = rng.uniform(5, 25, size=samples)
        seen, ended = np.minimum(lengths, ends), lengths > ends
        if naive:
            low, high = interval(np.median, seen, seed=seed)
        else:
            low, high = censored_median_interval(seen, ended)
        covered += low <= truth <= high
    return covered / experiments


def shared(samples: int, experiments: int) -> float:
    """Cover the median share of the older half where either half is as large in the median."""
    rng, covered = np.random.default_rng(2), 0
    for seed in range(experiments):
        sizes = np.exp(rng.normal(size=(samples, 2, 1))) * np.full(LAG, 1 / LAG)
        layer = xr.Dataset({"step_contribution": (("sample", "time"), sizes.reshape(samples, -1))})
        low, high = share(layer, LAG, seed=seed).interval
        covered += low <= 0.5 <= high
    return covered / experiments


def linear(rng: np.random.Generator, samples: int) -> tuple[np.ndarray, np.ndarray, Model]:
    """A weighted sum of two inputs with as much noise, squared loss."""
    weights = np.array([0.0, 1 / 3, 0, 0, 0, 1.0])
    x = rng.normal(size=(samples, STEPS))
    return x, x @ weights + rng.normal(size=samples), lambda x, y: (x @ weights - y) ** 2


def heavy_tails(rng: np.random.Generator, samples: int) -> tuple[np.ndarray, np.ndarray, Model]:
    """Student's t with 5 degrees of freedom, squared loss."""
    weights = np.array([0, 0.5, 0, 0, 0, 1.0])
    x = rng.standard_t(5, size=(samples, STEPS))
    return x, x @ weights + 0.5 * rng.standard_t(5, size=samples), lambda x, y: (x @ weights - y) ** 2


def classes(rng: np.random.Generator, samples: int) -> tuple[np.ndarray, np.ndarray, Model]:
    """Two classes, cross-entropy."""
    weights = np.array([0, 1.5, 0, 0, 0, 2.0])
    x = rng.normal(size=(samples, STEPS))
    y = np.where(rng.random(samples) < 1 / (1 + np.exp(-x @ weights)), 1.0, -1.0)
    return x, y, lambda x, y: np.log1p(np.exp(-y * (x @ weights)))


def nonlinear(rng: np.random.Generator, samples: int) -> tuple[np.ndarray, np.ndarray, Model]:
    """Skewed inputs, two of which work together, absolute loss."""
    weights = np.array([0.3, 0.6, -0.4, 0.2, 0.5, 1.0])

    def model(x):
        return np.tanh(x @ weights) + 0.3 * np.maximum(x[:, 1] * x[:, 5], 0)

    x = rng.exponential(size=(samples, STEPS)) - 1
    return x, model(x) + 0.2 * rng.normal(size=samples), lambda x, y: np.abs(model(x) - y)


def laplace(rng: np.random.Generator, samples: int) -> tuple[np.ndarray, np.ndarray, Model]:
    """Little use, hardly any noise: what a nearly solved network is."""
    weights = np.array([0, 0.1, 0, 0.2, 0, 1.0])
    x = rng.laplace(size=(samples, STEPS))
    return x, x @ weights + 0.3 * rng.normal(size=samples), lambda x, y: (x @ weights - y) ** 2


def binary(rng: np.random.Generator, samples: int) -> tuple[np.ndarray, np.ndarray, Model]:
    """The product of two signs, squared loss: one input tells nothing without the other.

    The interval covers a little more than 95 %: all of the rise belongs to pairs of samples, and their noise
    counts once with the one that receives and once with the one that gives. It fades with more partners.
    """
    x = np.sign(rng.normal(size=(samples, STEPS)))
    y = 0.7 * x[:, 1] * x[:, 5] + 0.7 * x[:, 4] + 0.5 * rng.normal(size=samples)
    return x, y, lambda x, y: (0.6 * x[:, 1] * x[:, 5] + 0.7 * x[:, 4] - y) ** 2


CHOSEN_ON, JUDGED_ON = (linear, heavy_tails, classes), (nonlinear, laplace, binary)


def used(family, samples: int, experiments: int) -> float:
    """Cover U of a family, whose truth a very large batch gives."""
    full, old = _swapped(family, 400_000, seed=12_345).changes.mean(axis=0)
    truth, covered = old / full, 0
    for seed in range(experiments):
        low, high = use(_swapped(family, samples, seed=seed), LAG, seed=seed).interval
        covered += low <= truth <= high
    return covered / experiments


def _swapped(family, samples, *, seed):
    x, y, loss = family(np.random.default_rng(seed), samples)

    class Losing:
        def losses(self, x, y, *, sample_weight, step):
            return loss(x, y)

    reading = Reading(np.ones(x.shape, bool), frozenset({"forward"}))
    return prefix_swap(Losing(), Batch(x, y, None, ""), reading, [LAG], seed=seed)


def main() -> None:
    reads = argparse.ArgumentParser(description=__doc__)
    reads.add_argument("--samples", type=int, nargs="+", default=[16, 32, 128])
    reads.add_argument("--experiments", type=int, default=1000)
    settings = reads.parse_args()
    measured = {"reach": reach, "horizon": horizon, "share": shared}
    print(f"{'':20}", *(f"{samples:7}" for samples in settings.samples))
    for name, cover in measured.items():
        found = [f"{cover(samples, settings.experiments):7.3f}" for samples in settings.samples]
        print(f"{name:20}", *found, flush=True)
    for family in (*CHOSEN_ON, *JUDGED_ON):
        found = [f"{used(family, samples, settings.experiments):7.3f}" for samples in settings.samples]
        print(f"{f'use, {family.__name__}':20}", *found, flush=True)


if __name__ == "__main__":
    main()
