"""Sketches against the exact quantiles of the same numbers."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from throughtime._monitor.sketch import ACCURACY, Sketch
from throughtime.diagnostics.statistics import median_interval

FRACTIONS = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def drawn(name: str) -> np.ndarray:
    """Draw heavy-tailed logarithms, (sample, position)."""
    generator = np.random.default_rng(0)
    if name == "lognormal":
        return generator.normal(scale=30, size=(5000, 3))
    if name == "pareto":
        return np.log(generator.pareto(0.3, size=(5000, 3)))
    return np.log(np.abs(generator.standard_cauchy((5000, 3)))) * [1, 20, 200]


@pytest.mark.parametrize("name", ["lognormal", "pareto", "cauchy"])
def test_quantiles_are_within_the_stated_error(name: str) -> None:
    values = drawn(name)
    found = Sketch.of(values)
    for fraction in FRACTIONS:
        exact = np.quantile(values, fraction, axis=0, method="lower")
        error = np.expm1(found.quantile(fraction) - exact)
        assert np.abs(error).max() <= ACCURACY * (1 + 1e-9)


def test_parts_in_any_order_are_the_whole() -> None:
    values = drawn("cauchy")
    whole = Sketch.of(values)
    order = np.random.default_rng(1).permutation(7)
    parts = [Sketch.of(values[start::7]) for start in order]
    joined = sum(parts[1:], parts[0])
    np.testing.assert_array_equal(joined.keys, whole.keys)
    np.testing.assert_array_equal(joined.counts, whole.counts)


@pytest.mark.parametrize("samples", [1, 2, 5, 6, 100, 1001])
def test_the_median_and_its_interval_are_those_of_the_values(samples: int) -> None:
    values = drawn("pareto")[:samples]
    exact, found = median_interval(values), Sketch.of(values).median_interval()
    for one, other in zip(exact, found, strict=True):
        np.testing.assert_allclose(other, one, atol=2.02 * ACCURACY)  # a bin is twice as wide
    np.testing.assert_allclose(found[0], exact[0], atol=1.01 * ACCURACY)


@pytest.mark.parametrize(
    ("spread", "samples"), [("heavy tails", 60), ("heavy tails", 1500), ("narrower than a bin", 4000)]
)
def test_the_interval_covers_the_median_of_the_data_set(spread: str, samples: int) -> None:
    """300 data sets, one a position, in seven shards: the median of all that could be drawn is 1."""
    generator = np.random.default_rng(3)
    draw = generator.standard_cauchy if spread == "heavy tails" else partial(generator.normal, 0.0, 0.1)
    parts = [Sketch.of(draw(size=(len(rows), 300))) for rows in np.array_split(np.arange(samples), 7)]
    middle, low, high = sum(parts[1:], parts[0]).median_interval()
    assert ((low <= middle) & (middle <= high)).all()
    covered = ((low <= 0) & (high >= 0)).mean()
    assert 0.93 <= covered <= (0.97 if spread == "heavy tails" else 0.98)


def test_zero_infinity_and_what_is_not_known() -> None:
    values = np.array([[-np.inf, np.inf, np.nan], [-np.inf, np.inf, np.nan], [0.0, np.inf, 0.0]])
    found = Sketch.of(values)
    assert found.samples.tolist() == [3, 3, 1]
    np.testing.assert_allclose(found.quantile(0.5), [-np.inf, np.inf, 0.0], atol=1.01 * ACCURACY)
    nothing, one = Sketch.of(np.full((4, 2), np.nan)), Sketch.of(np.zeros((1, 2)))
    assert np.isnan(nothing.quantile(0.5)).all()
    np.testing.assert_allclose((nothing + one).quantile(0.5), 0.0, atol=1.01 * ACCURACY)
