"""The first number in which two captures differ, planted at a known place."""

import numpy as np
import pytest

from throughtime import SchemaError, testing
from throughtime.diagnostics import first_difference


def test_what_is_computed_first_comes_first():
    usual, other = testing.nonfinite("cell", value=1.0), testing.nonfinite("cell", value=2.0, time=3)
    found = first_difference(usual, other)
    assert (found.variable, found.where) == ("cell", {"sample": 1, "time": 3, "unit": 2})
    other = usual.copy(deep=True)
    other["rnn"]["hidden"].values[0, 5, 0] += 1
    other["rnn"]["cell"].values[2, 5, 3] += 1
    assert first_difference(usual, other).variable == "cell"


def test_a_planted_difference_is_found_where_it_is():
    usual, other = testing.decaying(samples=2), testing.decaying(samples=2)
    other["rnn"]["hidden"].values[1, 7, 2] += 1
    other["rnn"]["hidden"].values[0, 9, 0] += 1
    other["rnn"]["hidden_gradient"].values[0, 0, 0] += 1
    found = first_difference(usual, other)
    assert (found.layer, found.variable) == ("/rnn", "hidden")
    assert found.where == {"sample": 1, "time": 7, "unit": 2}


def test_rounding_and_nan_on_both_sides_are_the_same():
    usual, other = testing.decaying(samples=2), testing.decaying(samples=2)
    largest = float(np.abs(usual["rnn"]["hidden"]).max())
    other["rnn"]["hidden"].values[0, 3, 0] += 1e-3 * largest
    assert first_difference(usual, other, rtol=1e-2) is None
    assert first_difference(usual, other, rtol=1e-4).where["time"] == 3
    for tree in (usual, other):
        tree["rnn"]["hidden"].values[0, 3, 0] = np.nan
    assert first_difference(usual, other) is None
    other["rnn"]["hidden"].values[0, 3, 0] = 0
    assert np.isnan(first_difference(usual, other).first)


def test_captures_of_other_sizes_or_numbers_of_layers_are_refused():
    usual = testing.decaying(samples=2)
    with pytest.raises(SchemaError, match="capture the same batch"):
        first_difference(usual, usual.isel(sample=slice(1)))
    several = usual.copy()
    several["other"] = usual["rnn"].copy()
    with pytest.raises(SchemaError, match="1 and 2 layers"):
        first_difference(usual, several)
