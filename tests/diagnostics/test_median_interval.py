"""The interval of a median: coverage by simulation, and what is left out."""

from __future__ import annotations

import numpy as np
import pytest

from throughtime.diagnostics.statistics import median_interval


@pytest.mark.parametrize("number", [6, 8, 16, 32, 33, 100])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_coverage(number, confidence):
    drawn = np.random.default_rng(number).exponential(size=(number, 40_000)) - np.log(2)
    _, low, high = median_interval(drawn, confidence=confidence)
    covered = np.mean((low <= 0) & (high >= 0))
    assert covered == pytest.approx(confidence, abs=0.012 if number > 6 else 0.03)


def test_few_values_give_their_range():
    middle, low, high = median_interval(np.array([1.0, 5.0, 2.0]))
    assert (middle, low, high) == (2.0, 1.0, 5.0)


def test_a_single_value_has_no_interval():
    middle, low, high = median_interval(np.array([[3.0], [np.nan]]))
    assert middle == 3.0
    assert np.isnan([low, high]).all()


def test_values_that_are_missing_are_left_out_column_by_column():
    values = np.random.default_rng(0).normal(size=(12, 2))
    values[7:, 1] = np.nan
    both = np.array(median_interval(values))
    np.testing.assert_array_equal(both[:, 0], np.array(median_interval(values[:, 0])))
    np.testing.assert_array_equal(both[:, 1], np.array(median_interval(values[:7, 1])))


def test_zeros_do_not_spoil_the_rest():
    _, low, high = median_interval(np.array([-np.inf] * 3 + [0.0] * 9))
    assert low < -100
    assert high == 0
