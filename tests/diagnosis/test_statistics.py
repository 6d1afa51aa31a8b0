"""Coverage of the intervals on simulated data; `benchmarks/science/coverage.py` has the long version."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from throughtime._inputs.batch import Batch
from throughtime.diagnosis.swap import Reading, prefix_swap
from throughtime.diagnosis.use import use
from throughtime.diagnostics import lag_profile, rules
from throughtime.diagnostics.statistics import (
    censored_median,
    censored_median_interval,
    interval,
    ratio_of_means,
)


def test_interval_of_the_median_log_ratio_covers():
    """Many columns of one profile, each an experiment of 32 samples whose median ratio is 1."""
    rng = np.random.default_rng(0)
    experiments, samples = 1500, 32
    gradient = np.exp(rng.normal(size=(samples, experiments + 1, 1)))
    gradient[:, -1] = 1.0  # lag 0
    layer = xr.Dataset({"hidden_gradient": (("sample", "time", "unit"), gradient)}, attrs={"kind": "gru"})
    found = lag_profile(layer).sel(lag=slice(1, None))
    covered = float(((found["low"] <= 1) & (found["high"] >= 1)).mean())
    assert 0.91 <= covered <= 0.97


def test_interval_of_a_ratio_of_means_covers():
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(150):
        below = 1 + 0.5 * rng.normal(size=32)
        above = 0.3 * below + 0.2 * rng.normal(size=32)
        low, high = interval(ratio_of_means, above, below, seed=seed)
        covered += low <= 0.3 <= high
    assert 0.88 <= covered / 150 <= 0.99


def test_interval_of_use_covers_although_samples_give_their_inputs_to_each_other():
    """What a sample gives to others varies with it, too; resampling what each one loses covers 0.88."""
    weights, covered, experiments = np.array([0.0, 1 / 3, 0, 0, 0, 1.0]), 0, 300

    class Losing:
        def losses(self, x, y, *, sample_weight, step):
            return (x @ weights - y) ** 2

    for seed in range(experiments):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(32, len(weights)))
        y = x @ weights + rng.normal(size=32)
        reading = Reading(np.ones(x.shape, bool), frozenset({"forward"}))
        swapped = prefix_swap(Losing(), Batch(x, y, None, ""), reading, [3], seed=seed)
        low, high = use(swapped, 3, seed=seed).interval
        covered += low <= 0.1 <= high
    assert 0.93 <= covered / experiments <= 0.98


def test_kaplan_meier_covers_where_the_naive_median_does_not():
    rng = np.random.default_rng(2)
    truth, window, covered, naive, experiments = 20.0, 25.0, 0, 0, 300
    for seed in range(experiments):
        lengths = rng.exponential(truth / np.log(2), size=32)
        ends = rng.uniform(5, window, size=32)  # sequences of different lengths
        seen, ended = np.minimum(lengths, ends), lengths > ends
        low, high = censored_median_interval(seen, ended)
        covered += low <= truth <= high
        naive_low, naive_high = interval(np.median, seen, seed=seed)
        naive += naive_low <= truth <= naive_high
    assert 0.92 <= covered / experiments <= 0.97
    assert naive / experiments < 0.2


def test_a_median_beyond_the_window_is_infinite():
    assert censored_median([5.0, 5.0, 1.0], [True, True, False]) == float("inf")
    assert censored_median([5.0, 4.0, 1.0], [False, False, False]) == 4.0
    low, high = censored_median_interval(np.full(8, 9.0), np.ones(8, bool))
    assert low == high == float("inf")


def test_one_sample_has_no_interval():
    assert np.isnan(interval(np.median, np.ones(1), seed=0)).all()
    assert np.isnan(censored_median_interval(np.ones(1), np.zeros(1, bool))).all()


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [(0.01, 0.5, "yes"), (0.001, 0.009, "no"), (0.001, 0.5, "unclear"), (0.01 * (1 - 1e-14), 1, "yes")],
)
def test_an_interval_decides_where_it_leaves_out_the_threshold(low, high, answer):
    assert rules.answer(low, high, 0.01) == answer
