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


@pytest.mark.parametrize("name", ["loss", "recurrent_kernel_gradient"])
def test_what_has_no_samples_is_compared(name):
    usual, other = testing.decaying(samples=2), testing.decaying(samples=2)
    other["rnn"][name].values[...] += 1
    found = first_difference(usual, other)
    assert (found.variable, found.second) == (name, pytest.approx(found.first + 1))
    assert f"{name} of rnn" in str(found)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_rounding_is_that_of_the_coarser_side(dtype):
    usual, other = testing.decaying(samples=2), testing.decaying(samples=2)
    other["rnn"].attrs["dtype"] = dtype
    spacing = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23}[dtype]
    for factor, differs in ((1 + 4 * spacing, False), (1.2, True)):
        changed = other.copy(deep=True)
        changed["rnn"]["hidden"].values[...] *= factor
        for pair in ((usual, changed), (changed, usual)):
            assert (first_difference(*pair) is not None) == differs


def test_outputs_of_the_last_step_and_of_all_steps_are_no_difference():
    last, every = testing.decaying(samples=2), testing.decaying(samples=2)
    for name in ("output", "output_gradient"):
        every["rnn"][name] = every["rnn"][name].expand_dims(time=every["rnn"].sizes["time"], axis=1)
    assert first_difference(last, every) is None
    every["rnn"]["hidden"].values[1, 4, 2] += 1
    for pair in ((last, every), (every, last)):
        assert first_difference(*pair).where == {"sample": 1, "time": 4, "unit": 2}


def test_captures_of_other_sizes_or_numbers_of_layers_are_refused():
    usual = testing.decaying(samples=2)
    with pytest.raises(SchemaError, match="capture the same batch"):
        first_difference(usual, usual.isel(sample=slice(1)))
    several = usual.copy()
    several["other"] = usual["rnn"].copy()
    with pytest.raises(SchemaError, match="1 and 2 layers"):
        first_difference(usual, several)
