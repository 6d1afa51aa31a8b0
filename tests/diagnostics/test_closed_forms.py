"""Measures on layers whose answer is known in closed form; the numbers are SCIENCE's acceptance numbers."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from throughtime import testing
from throughtime.diagnostics import (
    decay_rate,
    effective_steps,
    gradient_instability,
    lag_profile,
    lyapunov_exponents,
    lyapunov_spectrum,
    memory_horizon,
    recurrent_spectrum,
    retention,
    saturation,
    sensitivity,
    temporal_coherence,
    timescale,
    transient_growth,
    unit_correlation,
    vanishing_fraction,
)
from throughtime.diagnostics.rules import saturated_gates


def leaf(tree):
    return tree["rnn"].to_dataset()


def rotation(units, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(units, units)))[0]


class TestReach:
    @pytest.mark.parametrize("rate", [0.5, 0.9, 1.0, 1.5])
    def test_profile_is_a_power_of_the_rate(self, rate):
        profile = lag_profile(testing.decaying(rate, samples=3))
        np.testing.assert_allclose(profile["ratio"], rate ** np.arange(50), rtol=1e-12)
        np.testing.assert_allclose(profile["low"], profile["high"], rtol=1e-12)

    def test_lstm_remembers_in_its_cell_alone(self):
        lstm = testing.constant_gates()
        hidden = leaf(lstm)["hidden_gradient"]
        assert bool((hidden.isel(time=slice(None, -1)) == 0).all())
        profile = lag_profile(lstm)["ratio"]
        np.testing.assert_allclose(profile[2:] / profile[1:-1].values, 0.731059, atol=1e-6)

    def test_tiny_gradients_of_double_precision_keep_their_ratio(self):
        # 1e-8^40 = 1e-320 is below the smallest normal number, and its square is 0.
        profile = lag_profile(testing.decaying(1e-8, steps=41))
        np.testing.assert_allclose(np.log(profile["ratio"][:38]), np.log(1e-8) * np.arange(38), rtol=1e-12)
        assert float(profile["ratio"][40]) > 0

    def test_huge_gradients_keep_their_ratio(self):
        dataset = leaf(testing.exploding(10.0, steps=51))
        dataset["hidden_gradient"] *= 1e250  # its squares are beyond the range of float64
        np.testing.assert_allclose(lag_profile(dataset)["ratio"], 10.0 ** np.arange(51), rtol=1e-11)

    def test_lag_matrix_sees_what_the_total_gradient_hides(self):
        tree = testing.lag_matrix_of(0.5)
        np.testing.assert_allclose(lag_profile(tree)["ratio"], 0.5 ** np.arange(50), rtol=1e-12)
        total = lag_profile(leaf(tree).drop_vars("lag_matrix"))
        assert float(total["ratio"][40]) > 1.9  # flat at 1/(1 − 0.5), although memory is short
        assert (total.attrs["basis"], lag_profile(tree).attrs["basis"]) == ("gradient", "lag_matrix")

    @pytest.mark.parametrize("rate", [0.5, 0.9, 1.5])
    def test_decay_rate_is_the_logarithm_of_the_rate(self, rate):
        found = decay_rate(testing.decaying(rate, samples=4))
        for name in ("rate", "low", "high"):
            assert float(found[name]) == pytest.approx(np.log(rate), abs=1e-12)
        assert bool(found["exponential"])
        assert int(found["lags"]) == 45

    def test_decay_of_a_power_law_is_called_not_exponential(self):
        dataset = leaf(testing.perfect_memory(steps=100))
        power = 1.0 / np.arange(100, 0, -1)
        dataset["hidden_gradient"] = dataset["hidden_gradient"] * xr.DataArray(power, dims="time")
        assert not bool(decay_rate(dataset)["exponential"])

    def test_perfect_memory_is_exponential_at_rate_0(self):
        found = decay_rate(testing.perfect_memory())
        assert (float(found["rate"]), bool(found["exponential"])) == (0.0, True)

    def test_underflow_does_not_bend_the_fitted_rate(self):
        # Of 45 lags most hold 0 or a few bits in half precision.
        found = decay_rate(testing.decaying(0.5, dtype="float16"))
        assert float(found["rate"]) == pytest.approx(np.log(0.5), abs=1e-3)
        assert int(found["lags"]) == 10  # lags 5 to 14: half precision is normal down to 2^-14


class TestHorizon:
    @pytest.mark.parametrize(("rate", "horizon"), [(0.5, 6), (0.9, 43), (0.1, 2), (0.001, 0)])
    def test_horizon_is_the_last_lag_above_the_threshold(self, rate, horizon):
        found = memory_horizon(testing.decaying(rate))
        assert found.values.tolist() == [horizon]
        assert not found["censored"].any()

    def test_docstring_model_of_the_project(self):
        assert repr(memory_horizon(testing.decaying(rate=0.5)).values) == "array([6])"

    def test_float32_floor(self):
        lost = vanishing_fraction(testing.decaying(0.5, steps=200, dtype="float32"))
        below = lost["below_precision"].values
        assert below[:25].tolist() == [0.0] * 25  # 2^-24 itself is not below
        assert below[25:].tolist() == [1.0] * 175
        underflow, zero = lost["underflow"].values, lost["zero"].values
        # Every unit holds half the norm: subnormal from ‖·‖ < 2^-126, exactly 0 from lag 149.
        assert int(np.argmax(underflow)) == 127
        assert (underflow[127:] == 1).all()
        assert (zero == 0).all()
        gradient = leaf(testing.decaying(0.5, steps=200, dtype="float32"))["hidden_gradient"]
        assert int(np.argmax(gradient.values[0, ::-1, 0] == 0)) == 149

    def test_exact_zero_is_no_underflow(self):
        dataset = leaf(testing.decaying(0.5, steps=20, dtype="float32"))
        dataset["hidden_gradient"][:, :10] = 0.0
        lost = vanishing_fraction(dataset)
        assert lost["zero"].values.tolist() == [0.0] * 10 + [1.0] * 10
        assert not lost["underflow"].any()


class TestGates:
    def test_forget_bias_1(self):
        tau = timescale(testing.constant_gates())
        np.testing.assert_allclose(tau, 3.1922, atol=5e-5)
        np.testing.assert_allclose(tau * np.log(2), 2.2127, atol=5e-5)

    def test_update_gate_at_one_half(self):
        np.testing.assert_allclose(timescale(testing.constant_gates(0.5, kind="gru")), 1.4427, atol=5e-5)

    def test_gru_gradient_falls_by_its_update_gate(self):
        ratio = lag_profile(testing.constant_gates(0.5, kind="gru"))["ratio"]
        np.testing.assert_allclose(ratio, 0.5 ** np.arange(50), rtol=1e-12)

    @pytest.mark.parametrize(("gate", "tau"), [(1.0, np.inf), (0.0, 0.0)])
    def test_gates_at_the_ends(self, gate, tau):
        dataset = leaf(testing.constant_gates())
        dataset["gate_activation"][:] = gate
        assert (timescale(dataset) == tau).all()

    def test_mean_is_of_the_logarithm(self):
        dataset = leaf(testing.constant_gates(steps=2))
        dataset["gate_activation"].loc[{"gate": "forget", "time": 0}] = 0.1
        dataset["gate_activation"].loc[{"gate": "forget", "time": 1}] = 1.0
        np.testing.assert_allclose(timescale(dataset), 2 / np.log(10))

    def test_saturation_counts_both_ends_of_every_gate(self):
        found = saturation(testing.saturated_gates(left=0.25, right=0.5))
        np.testing.assert_array_equal(found["left"], 0.25)
        np.testing.assert_array_equal(found["right"], 0.5)
        assert found["left"].dims == ("gate", "unit")

    def test_saturation_of_relu_is_not_defined(self):
        dataset = leaf(testing.saturated_gates()).assign_attrs(activation="relu")
        found = saturation(dataset)["right"]
        assert found.sel(gate="candidate").isnull().all()
        assert found.sel(gate="forget").notnull().all()

    def test_thresholds_of_the_candidate_are_parts_of_its_range(self):
        dataset = leaf(testing.constant_gates())
        dataset["gate_activation"].loc[{"gate": "candidate"}] = 0.05  # below 0.1, in the middle of −1 to 1
        assert (saturation(dataset)["left"] == 0).all()


class TestWhatTeaches:
    def test_halving_contributions(self):
        found = effective_steps(testing.decaying(0.5, steps=50))
        assert (found["k50"].item(), found["k90"].item()) == (0.0, 3.0)
        assert found["n_eff"].item() == pytest.approx(3.0)  # (1/(1−r))² (1−r²) at r = 1/2

    def test_equal_contributions(self):
        found = effective_steps(testing.perfect_memory(steps=11))  # the first step contributes 0
        assert (found["k50"].item(), found["k90"].item()) == (4.0, 8.0)
        assert found["n_eff"].item() == pytest.approx(10.0)

    def test_no_contribution_is_not_a_number(self):
        dataset = leaf(testing.decaying(0.5, samples=2))
        dataset["step_contribution"][0] = 0.0
        found = effective_steps(dataset)
        assert found["k50"].isnull().values.tolist() == [True, False]

    @pytest.mark.parametrize(
        "tree",
        [
            testing.decaying(0.9, samples=3, steps=20),
            testing.decaying(0.9, samples=3, steps=20, direction="backward"),
            testing.constant_gates(samples=3, steps=20),
            testing.constant_gates(kind="gru", samples=3, steps=20),
        ],
        ids=["rnn", "go_backwards", "lstm", "gru"],
    )
    def test_coherence_is_the_weight_gradient_over_its_parts(self, tree):
        dataset = leaf(tree)
        found = temporal_coherence(dataset)
        for sample in range(3):
            alone = dataset.isel(sample=[sample])
            parts = float(alone["step_contribution"].sum())
            one = temporal_coherence(alone)
            # Of one sample alone the sum over samples is its own length.
            assert float(one["kappa"]) == pytest.approx(1.0)
            assert one["coherence"].item() == pytest.approx(float(found["coherence"][sample]))
            assert 0 < one["coherence"].item() * parts <= parts
        lengths = found["coherence"] * dataset["step_contribution"].sum("time")
        whole = 3 * np.linalg.norm(dataset["recurrent_kernel_gradient"])  # the mean undone
        assert float(found["kappa"] * lengths.sum()) == pytest.approx(whole, rel=1e-10)
        assert float(found["noise_floor"]) == pytest.approx(3**-0.5)

    def test_steps_that_cancel(self):
        dataset = leaf(testing.perfect_memory(steps=3))
        dataset["hidden"][:] = 1.0
        dataset["gate_gradient"][0, 1] = -dataset["gate_gradient"][0, 2]
        assert temporal_coherence(dataset)["coherence"].item() == pytest.approx(0.0, abs=1e-15)

    def test_reset_before_the_product_is_another_gradient(self):
        rng = np.random.default_rng(0)
        dataset = leaf(testing.constant_gates(kind="gru", samples=1, steps=6, units=3))
        for name in ("hidden", "gate_gradient", "gate_activation"):
            dataset[name][:] = rng.uniform(0.1, 0.9, dataset[name].shape)
        h, dz = dataset["hidden"].values[0], dataset["gate_gradient"].values[0]
        before = np.concatenate([np.zeros((1, 3)), h[:-1]])
        reset = dataset["gate_activation"].sel(gate="reset").values[0]
        gates = np.einsum("tm,tgn->tmgn", before, dz)
        gates[:, :, 2] = np.einsum("tm,tn->tmn", before * reset, dz[:, 2])
        expected = np.linalg.norm(gates.sum(0)) / sum(np.linalg.norm(step) for step in gates)
        found = temporal_coherence(dataset.assign_attrs(reset_after=0))["coherence"]
        assert found.item() == pytest.approx(expected)
        assert temporal_coherence(dataset)["coherence"].item() != pytest.approx(expected, rel=1e-3)


class TestStability:
    @pytest.mark.parametrize("rate", [0.9, 1.0, 1.1])
    def test_omega_of_a_scaled_rotation(self, rate):
        found = gradient_instability(testing.decaying(rate, samples=2, steps=50))
        np.testing.assert_allclose(found, 49 * (rate - 1) ** 2, atol=1e-12)

    def test_omega_without_the_losses_on_the_way(self):
        found = gradient_instability(testing.lag_matrix_of(0.9, steps=50))
        # δ_t J = 0.9·δ_{t+1} at every step, whatever is added there.
        np.testing.assert_allclose(found, 0.49, rtol=1e-10)

    def test_spectrum_of_a_scaled_rotation(self):
        dataset = leaf(testing.decaying(units=6))
        dataset["recurrent_kernel"] = (("unit_from", "unit"), 0.8 * rotation(6))
        found = recurrent_spectrum(dataset)
        assert float(found["spectral_radius"]) == pytest.approx(0.8)
        assert float(found["largest_singular_value"]) == pytest.approx(0.8)
        assert float(found["orthogonality_gap"]) == pytest.approx(1 - 0.64)
        assert float(found["non_normality"]) == pytest.approx(0.0, abs=1e-7)
        np.testing.assert_allclose(np.abs(found["eigenvalues"]), 0.8)

    def test_shear(self):
        shear = np.array([[0.9, 5.0], [0.0, 0.9]])
        growth = transient_growth(shear)
        assert (int(growth.argmax()), round(float(growth.max()), 2)) == (9, 19.38)
        dataset = leaf(testing.decaying(units=2))
        dataset["recurrent_kernel"] = (("unit_from", "unit"), shear)
        found = recurrent_spectrum(dataset)
        assert float(found["spectral_radius"]) == pytest.approx(0.9)
        assert float(found["non_normality"]) == pytest.approx(5 / np.sqrt(25 + 2 * 0.81))

    def test_spectrum_of_each_gate_alone(self):
        dataset = leaf(testing.constant_gates())
        for number in range(4):
            dataset["recurrent_kernel"][:, number] = number * np.eye(4)
        found = recurrent_spectrum(dataset)
        assert found["spectral_radius"].sel(gate=["input", "output"]).values.tolist() == [0.0, 3.0]
        assert found["non_normality"].isnull().values.tolist() == [True, False, False, False]

    def test_broken_weights_have_no_spectrum(self):
        dataset = leaf(testing.decaying())
        dataset["recurrent_kernel"][0, 0] = np.nan
        assert recurrent_spectrum(dataset).isnull().all().to_array().all()


class TestLyapunov:
    def test_sum_of_all_exponents_is_the_mean_log_determinant(self):
        jacobians = np.random.default_rng(1).normal(size=(3, 40, 5, 5))
        exponents = lyapunov_exponents(jacobians)
        logdet = np.linalg.slogdet(jacobians)[1].mean(axis=1)
        np.testing.assert_allclose(exponents.sum(axis=1), logdet, atol=1e-10)
        assert (np.diff(exponents, axis=1) <= 0).all()

    def test_masked_steps_are_passed_over(self):
        jacobians = np.random.default_rng(2).normal(size=(1, 30, 4, 4))
        valid = np.ones((1, 30), dtype=bool)
        valid[0, [0, 7, 8, 29]] = False
        expected = lyapunov_exponents(jacobians[:, valid[0]])
        np.testing.assert_allclose(lyapunov_exponents(jacobians, valid=valid), expected, rtol=1e-12)

    def test_erased_direction_and_no_step_at_all(self):
        jacobians = np.tile(np.diag([0.5, 0.0]), (2, 6, 1, 1))
        valid = np.array([[True] * 6, [False] * 6])
        found = lyapunov_exponents(jacobians, valid=valid)
        np.testing.assert_array_equal(found[0], [np.log(0.5), -np.inf])
        assert np.isnan(found[1]).all()

    def test_broken_jacobian_is_not_a_number(self):
        jacobians = np.tile(np.eye(2), (2, 6, 1, 1))
        jacobians[1, 3] = np.nan
        assert np.isnan(lyapunov_exponents(jacobians)).all(axis=1).tolist() == [False, True]

    def test_layers_of_known_exponents(self):
        for direction in (None, "backward"):
            found = lyapunov_spectrum(testing.decaying(0.7, samples=2, steps=10, direction=direction))
            np.testing.assert_allclose(found, np.log(0.7), rtol=1e-12)
        both = lyapunov_spectrum(testing.bidirectional((0.5, 0.9), steps=10)).isel(sample=0)
        np.testing.assert_allclose(both.sel(direction="backward"), np.log(0.9), rtol=1e-12)
        np.testing.assert_allclose(both.sel(direction="forward"), np.log(0.5), rtol=1e-12)

    def test_lstm_with_constant_gates_keeps_its_cell(self):
        found = lyapunov_spectrum(testing.constant_gates(0.9, steps=8, units=2))
        np.testing.assert_allclose(found.isel(exponent=slice(2)), np.log(0.9), rtol=1e-12)
        assert (found.isel(exponent=slice(2, 4)) == -np.inf).all()  # h is made anew at every step

    @pytest.mark.parametrize(
        ("gain", "spread", "expected"), [(1.0, 0.0, 0.0), (2.0, 0.0, 0.155), (1.0, 0.5, -0.273)]
    )
    def test_random_network(self, gain, spread, expected):
        # h_t = tanh(h_{t−1} U + ξ_t), U ~ N(0, g²/n)
        n, steps, transient = 128, 300, 100
        rng = np.random.default_rng(0)
        kernel = rng.normal(size=(n, n)) * gain / np.sqrt(n)
        state, jacobians = rng.normal(size=n), np.empty((1, steps, n, n))
        for step in range(steps):
            state = np.tanh(state @ kernel + spread * rng.normal(size=n))
            jacobians[0, step] = (1 - state**2)[:, None] * kernel.T
        found = lyapunov_exponents(jacobians, transient=transient)
        assert found[0, 0] == pytest.approx(expected, abs=0.03)


class TestPlainArrays:
    def test_retention_of_an_underflowing_product(self):
        assert float(retention(np.full((2, 3), 0.5), axis=1)[0]) == pytest.approx(0.125)
        assert float(retention([0.5] * 2000)) == 0.0
        assert float(retention([0.5j, -0.5])) == pytest.approx(0.25)

    def test_sensitivity_explodes_as_memory_grows(self):
        np.testing.assert_allclose(sensitivity([0.0, 0.5]), [1.0, 1.25 / 0.75**3])

    def test_correlation(self):
        dataset = leaf(testing.decaying(samples=2, steps=30))
        dataset["hidden"][..., 1] = -2 * dataset["hidden"][..., 0] + 1
        dataset["hidden"][..., 2] = 0.3
        found = unit_correlation(dataset)
        assert float(found[0, 1]) == pytest.approx(-1.0)
        assert found[2].isnull().all()
        pooled = dataset["hidden"].values.reshape(-1, 4)
        expected = np.corrcoef(pooled[:, 0], pooled[:, 3])[0, 1]
        assert float(found[0, 3]) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["lstm", "conv_lstm"])
def test_a_forget_gate_that_stays_open_is_no_fault(kind):
    gates = ["input", "forget", "candidate", "output"]
    assert not [*saturated_gates([0.95, 0, 0, 0], [0, 0.95, 0, 0], gates, kind)]
    assert [*saturated_gates([0, 0, 0, 0.95], [0, 0, 0, 0], gates, kind)] == [("output", "shut", 0.95)]
