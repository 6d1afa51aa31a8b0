"""Scales, codes and pooling: values can be read back, order is kept, no spike is lost."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from throughtime.diagnostics.statistics import quantiles
from throughtime.picture._drawing.colors import TOP, Colors
from throughtime.picture._drawing.palettes import palette
from throughtime.picture._drawing.pooling import pooled, pooled_flags
from throughtime.picture._drawing.scale import FLOOR, Scale, scale_for

NUMBERS = st.floats(-1e6, 1e6, allow_subnormal=False)


def read_back(code: int, scale: Scale) -> float:
    """Decode as the page's hover does, written anew."""
    share = code / TOP
    if scale.kind == "linear":
        return scale.low + share * (scale.high - scale.low)
    side = share if scale.kind == "log10" else abs(2 * share - 1)
    size = scale.low * (scale.high / scale.low) ** side
    return -size if scale.kind == "signed_log" and share < 0.5 else size


@pytest.mark.parametrize("kind", ["log10", "signed_log", "linear"])
@given(values=arrays.arrays(np.float64, (3, 4), elements=NUMBERS))
def test_value_is_read_back_from_its_code(kind, values):
    scale = scale_for(values, kind)
    codes = Colors(palette("vik"), scale).codes(values)
    for code, value in zip(codes.ravel(), values.ravel(), strict=True):
        if code >= 0:
            expected = abs(value) if kind == "log10" else value
            span = scale.high - scale.low if kind == "linear" else abs(value)
            assert read_back(int(code), scale) == pytest.approx(expected, abs=1.1e-3 * span)


@pytest.mark.parametrize("kind", ["log10", "signed_log", "linear"])
def test_position_keeps_order_and_ends(kind):
    values = np.geomspace(FLOOR, 1.0, 50)
    scale = scale_for(values, kind)
    assert scale.position(np.array([scale.high])) == pytest.approx(1.0)
    assert (np.diff(scale.position(values)) >= 0).all()
    assert all(-1e-9 <= at <= 1 + 1e-9 for at, _ in scale.ticks())
    assert len({word for _, word in scale.ticks()}) == len(scale.ticks())


@given(
    values=arrays.arrays(np.float64, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=NUMBERS),
    rows=st.integers(1, 50),
    columns=st.integers(1, 50),
)
def test_pooling_keeps_every_spike(values, rows, columns):
    small = pooled(values, rows, columns)
    assert small.shape == (min(rows, values.shape[0]), min(columns, values.shape[1]))
    assert np.abs(small).max() == np.abs(values).max()
    assert np.isin(small, values).all()


def test_pooling_keeps_what_is_not_finite():
    values = np.zeros((100, 100))
    values[3, 7], values[50, 60], values[80, 80] = np.nan, -np.inf, np.inf
    small = pooled(values, 10, 10)
    assert np.isnan(small[0, 0])
    assert (small[5, 6], small[8, 8]) == (-np.inf, np.inf)
    assert np.count_nonzero(small) == 3


def test_pooled_flag_needs_all():
    flags = np.ones((4, 4), dtype=bool)
    flags[0, 0] = False
    np.testing.assert_array_equal(pooled_flags(flags, 2, 2), [[False, True], [True, True]])


@given(arrays.arrays(np.float64, (7, 5), elements=st.one_of(NUMBERS, st.just(np.nan))))
def test_quantiles_are_those_of_numpy(values):
    shares = (0.0, 0.1, 0.5, 0.9)
    found = quantiles(values, shares)
    for share, got in zip(shares, found, strict=True):
        for column in range(values.shape[1]):
            kept = values[~np.isnan(values[:, column]), column]
            expected = np.quantile(kept, share) if kept.size else np.nan
            assert got[column] == pytest.approx(expected, nan_ok=True, rel=1e-9, abs=1e-9)


def value_of(word: str) -> float:
    """Read the number of a tick: 0.5, 10⁻³, −2.0·10⁻⁵."""
    plain = word.replace("−", "-")
    if (power := re.fullmatch(r"(-?)([\d.]*)·?10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)", plain)) is None:
        return float(plain)
    sign, factor, exponent = power.groups()
    exponent = exponent.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789"))
    return float(f"{sign}{factor or 1}e{exponent}")


@pytest.mark.parametrize("kind", ["log10", "signed_log"])
@given(low=st.floats(1e-6, 1e2), decades=st.floats(0.1, 12))
def test_ticks_lie_where_their_words_say(kind, low, decades):
    scale = Scale(kind, low, low * 10**decades)
    ticks = [(at, word) for at, word in scale.ticks() if word[0] not in "≤±"]
    for at, word in ticks:  # words have at least two digits
        assert at == pytest.approx(float(scale.position(np.array(value_of(word)))), abs=0.025 / decades)
    assert len(ticks) >= (1 if decades < 0.8 else 2), "a scale of one tick cannot be read"
