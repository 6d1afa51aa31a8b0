"""Each activation's slope is the derivative of its value, written in terms of the value."""

from __future__ import annotations

import numpy as np
import pytest

from throughtime.cells import ACTIVATIONS, activation
from throughtime.cells.activations import activate

KINKS = {-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 6.0}
POINTS = np.array([z for z in np.linspace(-7, 7, 113) if min(abs(z - kink) for kink in KINKS) > 0.03])
# Eighth order: exact to 1e-12 at this step for these functions.
STENCIL = {1: 4 / 5, 2: -1 / 5, 3: 4 / 105, 4: -1 / 280}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slope_is_the_derivative(name):
    found, step = activation(name), 0.005
    differences = sum(
        weight * (found.value(POINTS + k * step) - found.value(POINTS - k * step)) / step
        for k, weight in STENCIL.items()
    )
    np.testing.assert_allclose(found.slope(found.value(POINTS)), differences, rtol=0, atol=2e-10 * np.exp(7))
    small = np.abs(POINTS) < 3
    np.testing.assert_allclose(found.slope(found.value(POINTS))[small], differences[small], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_is_kept(name, dtype):
    found = activation(name)
    values = found.value(POINTS.astype(dtype))
    assert values.dtype == dtype
    assert found.slope(values).dtype == dtype


def test_large_arguments_give_no_warning():
    extreme = np.array([-1e4, 1e4])
    for name in set(ACTIVATIONS) - {"exponential"}:
        found = activation(name)
        assert np.isfinite(found.slope(found.value(extreme))).all(), name


@pytest.mark.parametrize(
    "names", [("sigmoid", "sigmoid", "tanh", "sigmoid"), ("relu", "tanh", "sigmoid", "sigmoid")]
)
def test_gates_are_activated_in_place_each_by_its_own(names):
    columns = np.random.default_rng(0).normal(size=(5, 4, 3))
    expected = np.stack([activation(name).value(columns[:, gate]) for gate, name in enumerate(names)], axis=1)
    activate(columns, names)
    np.testing.assert_array_equal(columns, expected)


def test_what_has_no_closed_form_is_none():
    assert activation("softmax") is None
    assert activation("my_activation") is None
