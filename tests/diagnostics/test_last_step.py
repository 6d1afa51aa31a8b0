"""Gradients of the error at the last step alone, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.stats import ortho_group

import throughtime as tt
from throughtime import testing
from throughtime.diagnostics import from_last_step, lag_profile

STEPS, UNITS, SAMPLES = 30, 5, 4
LAGS = np.arange(STEPS)


def every_step(rate, **options):
    """A linear RNN with a loss at every step, without its lag matrix."""
    tree = testing.lag_matrix_of(rate, steps=STEPS, samples=SAMPLES, units=UNITS, **options)
    return tree["rnn"].to_dataset().drop_vars("lag_matrix")


@pytest.mark.parametrize("direction", [None, "backward"])
@pytest.mark.parametrize("rate", [0.8, 1.0, 1.1])
def test_a_loss_at_every_step_leaves_the_power_of_the_kernel(rate, direction):
    leaf = every_step(rate, direction=direction)
    assert lag_profile(leaf)["ratio"].values[-1] != pytest.approx(rate ** (STEPS - 1), rel=0.1)
    np.testing.assert_allclose(lag_profile(from_last_step(leaf))["ratio"], rate**LAGS, rtol=1e-12)


def test_a_rotation_that_grows():
    leaf = every_step(1.0)
    rotation = ortho_group.rvs(UNITS, random_state=0)
    kernel = leaf["recurrent_kernel"]
    turned = leaf.assign(recurrent_kernel=kernel.copy(data=1.3 * rotation.reshape(kernel.shape)))
    alone = from_last_step(turned.drop_vars(["certificate_weights", "certificate_time"], errors="ignore"))
    norms = np.linalg.norm(alone["hidden_gradient"].values, axis=-1)[:, ::-1]
    np.testing.assert_allclose(norms, np.broadcast_to(1.3**LAGS, norms.shape), rtol=1e-12)


def test_contributions_are_norms_of_state_times_error():
    leaf = every_step(0.9)
    alone = from_last_step(leaf)
    before = np.linalg.norm(leaf["hidden"].values[:, :-1], axis=-1)
    wanted = before * 0.9 ** LAGS[::-1][1:]
    np.testing.assert_allclose(alone["step_contribution"].values[:, 1:], wanted, rtol=1e-12)
    assert (alone["step_contribution"].values[:, 0] == 0).all()


@pytest.mark.parametrize("tree", [testing.decaying(0.7, samples=3), testing.constant_gates(samples=3)])
def test_a_layer_that_is_read_at_its_last_step_stays_what_it_is(tree):
    leaf = tree["rnn"].to_dataset()
    xr.testing.assert_allclose(from_last_step(leaf), leaf, rtol=1e-10)


@pytest.mark.parametrize("padding", ["after", "before"])
def test_masked_steps_are_no_time(padding):
    leaf = testing.with_masks([20, 8, 1], rate=0.5, steps=20, padding=padding)["rnn"].to_dataset()
    profile = lag_profile(from_last_step(leaf))
    np.testing.assert_allclose(profile["ratio"], 0.5 ** np.arange(20), rtol=1e-12)


def test_a_cell_without_a_closed_form_is_refused():
    leaf = every_step(0.5)
    with pytest.raises(tt.DiagnosticError, match="closed form"):
        from_last_step(leaf.assign_attrs(activation="swish7"))
    with pytest.raises(tt.SchemaError, match="recurrent_kernel"):
        from_last_step(leaf.drop_vars("recurrent_kernel"))
