"""What captures bring with them: directions, masks, window ends, training steps, lazy arrays, faults."""

from __future__ import annotations

import dask
import dask.array
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import throughtime as tt
from throughtime import diagnostics, testing
from throughtime._errors import DiagnosticError
from throughtime.diagnostics import (
    decay_rate,
    effective_steps,
    first_nonfinite,
    gradient_instability,
    horizon_text,
    lag_profile,
    lyapunov_spectrum,
    memory_horizon,
    memory_horizon_median,
    ratio_text,
    recurrent_spectrum,
    saturation,
    temporal_coherence,
    timescale,
    unit_correlation,
    vanishing_fraction,
)

ON_ANY = (
    lag_profile,
    memory_horizon,
    memory_horizon_median,
    vanishing_fraction,
    effective_steps,
    decay_rate,
    gradient_instability,
    recurrent_spectrum,
    temporal_coherence,
    unit_correlation,
    lyapunov_spectrum,
)
ON_GATES = (*ON_ANY, timescale, saturation)


def leaf(tree):
    return tree["rnn"].to_dataset()


def same(left, right):
    """Equal numbers, whatever the dtype; dims in any order."""
    left, right = (
        each.to_dataset(name="it") if isinstance(each, xr.DataArray) else each for each in (left, right)
    )
    assert set(left.variables) == set(right.variables)
    for name in left.data_vars:
        a, b = left[name], right[name].transpose(*left[name].dims)
        np.testing.assert_allclose(a.values, b.values, rtol=1e-12, atol=1e-14, err_msg=name)


@pytest.mark.parametrize("measure", ON_GATES)
def test_a_measure_does_not_carry_the_description_of_what_it_was_measured_from(measure):
    dataset = leaf(testing.constant_gates(samples=2, steps=12))
    for name, variable in dataset.data_vars.items():
        variable.attrs |= {"long_name": str(name), "description": "what was captured"}
    found = measure(dataset)
    for variable in found.data_vars.values() if isinstance(found, xr.Dataset) else [found]:
        assert variable.attrs.get("description") != "what was captured"
        assert variable.attrs.get("long_name") not in dataset.data_vars
    assert all(
        variable.attrs["description"] == "what was captured" for variable in dataset.data_vars.values()
    )


class TestDirection:
    @pytest.mark.parametrize("measure", ON_ANY)
    def test_layer_that_reads_backward_gives_what_its_mirror_image_gives(self, measure):
        forward = testing.decaying([0.5, 0.8, 0.9], steps=20)
        backward = testing.decaying([0.5, 0.8, 0.9], steps=20, direction="backward")
        assert not np.array_equal(leaf(forward)["hidden_gradient"], leaf(backward)["hidden_gradient"])
        same(measure(forward), measure(backward))

    @pytest.mark.parametrize("measure", ON_ANY)
    def test_each_direction_is_what_it_is_alone(self, measure):
        both = leaf(testing.bidirectional((0.5, 0.9), samples=3, steps=20))
        found = measure(both)
        for direction in ("forward", "backward"):
            alone = measure(both.sel(direction=direction))
            same(found.sel(direction=direction), alone)

    def test_directions_are_never_merged(self):
        horizon = memory_horizon(testing.bidirectional((0.5, 0.9))).isel(sample=0)
        assert [int(horizon.sel(direction=name)) for name in ("forward", "backward")] == [6, 43]

    def test_backward_half_of_a_layer_that_reads_backward_reads_forward(self):
        both = leaf(testing.bidirectional((0.5, 0.5), steps=20)).assign_attrs(go_backwards=1)
        # Attribute and arrays disagree on purpose: lag 0 is where the signal is weakest.
        assert float(lag_profile(both)["ratio"].sel(lag=19, direction="forward")) == pytest.approx(2.0**19)

    def test_lag_matrix_of_a_layer_that_reads_backward(self):
        found = lag_profile(testing.lag_matrix_of(0.5, steps=8, direction="backward"))["ratio"]
        np.testing.assert_allclose(found, 0.5 ** np.arange(8), rtol=1e-12)

    def test_loss_steps_without_signal_end_no_sequence(self):
        both = leaf(testing.lag_matrix_of(0.99, steps=12, samples=2))
        weight = xr.DataArray([[1.0] * 12, [1.0] * 5 + [0.0] * 7], dims=["sample", "loss_time"])
        both["lag_matrix"] = both["lag_matrix"] * weight  # as with weights of steps, or padding by them
        horizon = memory_horizon(both)
        assert (horizon.values.tolist(), horizon["censored"].values.tolist()) == ([11, 4], [True, True])

    def test_directions_without_labels_are_refused(self):
        with pytest.raises(tt.SchemaError, match="'direction' has no labels"):
            lag_profile(leaf(testing.bidirectional()).drop_vars("direction"))


class TestMasks:
    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.lists(st.booleans(), min_size=9, max_size=9), min_size=1, max_size=4))
    def test_lags_count_valid_steps_wherever_the_masked_ones_are(self, masks):
        valid = np.array(masks)
        lag = valid[:, ::-1].cumsum(axis=1)[:, ::-1] - 1
        gradient = np.where(valid, 0.5 ** np.maximum(lag, 0), np.nan)  # NaN: a masked step is not read
        dataset = xr.Dataset(
            {
                "hidden_gradient": (("sample", "time", "unit"), gradient[..., None]),
                "valid": (("sample", "time"), valid),
            },
            attrs={"kind": "gru"},
        )
        profile = lag_profile(dataset)
        lengths = valid.sum(axis=1)
        reached = np.arange(9) < lengths.max(initial=0)
        np.testing.assert_allclose(profile["ratio"][reached], 0.5 ** np.arange(reached.sum()), rtol=1e-12)
        assert profile["ratio"][~reached].isnull().all()
        assert profile["censored"].values.tolist() == (~reached).tolist()
        assert profile["samples"].values.tolist() == [(lengths > k).sum() for k in range(9)]
        assert int(profile["no_steps"]) == (lengths == 0).sum()

    @pytest.mark.parametrize("padding", ["after", "before"])
    def test_padding_changes_nothing(self, padding):
        padded = testing.with_masks([12, 12], steps=20, padding=padding)
        alone = leaf(padded).isel(time=slice(12) if padding == "after" else slice(8, None))
        assert bool(alone["valid"].all())
        for measure in (memory_horizon_median, effective_steps, decay_rate, gradient_instability):
            same(measure(padded), measure(alone))
        same(temporal_coherence(padded)["kappa"], temporal_coherence(alone)["kappa"])

    def test_lengths_censor_each_sample_by_itself(self):
        horizon = memory_horizon(testing.with_masks([50, 20, 4, 1]))
        assert horizon.values.tolist() == [6, 6, 3, 0]
        assert horizon["censored"].values.tolist() == [False, False, True, True]
        assert horizon_text(horizon).values.tolist() == ["6", "6", "≥ 3", "≥ 0"]

    def test_masked_values_are_in_no_statistic(self):
        tree = leaf(testing.constant_gates(samples=2, steps=20))
        tree["valid"][:, 15:] = False
        spoiled = tree.copy(deep=True)
        for name in ("gate_activation", "hidden", "cell"):
            spoiled[name][:, 15:] = np.nan
        for measure in (timescale, saturation, unit_correlation):
            same(measure(spoiled), measure(tree))
        assert first_nonfinite(spoiled) is None

    def test_sample_of_padding_alone_is_not_measured(self):
        horizon = memory_horizon(testing.with_masks([50, 0]))
        assert horizon_text(horizon).values.tolist() == ["6", "not measured"]
        assert effective_steps(testing.with_masks([50, 0]))["k50"].isnull().values.tolist() == [False, True]

    def test_lag_matrix_with_masks(self):
        dataset = leaf(testing.lag_matrix_of(0.5, samples=2, steps=10))
        dataset["valid"][1, 6:] = False
        dataset["lag_matrix"][1, 6:], dataset["lag_matrix"][1, :, 6:] = np.nan, np.nan
        profile = lag_profile(dataset)
        np.testing.assert_allclose(profile["ratio"], 0.5 ** np.arange(10), rtol=1e-12)
        assert profile["samples"].values.tolist() == [2] * 6 + [1] * 4


class TestWindow:
    def test_lag_beyond_the_window_is_no_number(self):
        profile = lag_profile(testing.decaying(0.5, samples=4), lags=[49, 50, 500])
        assert profile["ratio"].isnull().values.tolist() == [False, True, True]
        assert profile["censored"].values.tolist() == [False, True, True]
        assert ratio_text(profile, 500) == "censored at 49: no sample is longer"

    def test_ratio_in_words(self):
        profile = lag_profile(testing.decaying([0.5, 0.5, 0.5]), lags=[1])
        assert ratio_text(profile, 1) == "0.5 [0.5, 0.5] of lag 0, 3 samples"
        with pytest.raises(DiagnosticError, match=r"lag_profile\(lags=\[2\]\)"):
            ratio_text(profile, 2)

    def test_perfect_memory_is_at_least_as_long_as_the_window(self):
        horizon = memory_horizon(testing.perfect_memory(samples=2))
        assert horizon["censored"].all()
        assert horizon_text(horizon).values.tolist() == ["≥ 49", "≥ 49"]
        median = memory_horizon_median(testing.perfect_memory(samples=2))
        assert np.isnan(median["median"])
        assert (bool(median["censored"]), int(median["at_least"])) == (True, 49)
        assert horizon_text(median).item() == "≥ 49"

    def test_median_takes_short_sequences_for_lower_bounds(self):
        # Horizons 3 (cut), 3 (cut), 43, 43: the plain median of the numbers would be 23.
        tree = testing.with_masks([4, 4, 50, 50], rate=0.9)
        found = memory_horizon_median(tree)
        assert (int(found["median"]), bool(found["censored"])) == (43, False)
        assert (int(found["samples"]), int(found["censored_samples"])) == (4, 2)
        assert horizon_text(found).item() == "43"

    def test_bare_numbers_cannot_be_told(self):
        bare = memory_horizon(testing.decaying()).drop_vars("censored")
        with pytest.raises(DiagnosticError, match="'censored'"):
            horizon_text(bare)

    def test_random_loss_steps_of_a_lag_matrix(self):
        dataset = leaf(testing.lag_matrix_of(0.5, steps=20))
        some = dataset.isel(loss_time=[4, 15]).assign_coords(loss_time=[4, 15])
        profile = lag_profile(some)
        np.testing.assert_allclose(profile["ratio"][:16], 0.5 ** np.arange(16), rtol=1e-12)
        assert profile["censored"].values.tolist() == [False] * 16 + [True] * 4
        with pytest.raises(DiagnosticError, match="2 of 20 loss steps"):
            lag_profile(dataset.isel(loss_time=[4, 15]))


class TestSamples:
    def test_interval_is_over_samples(self):
        rates = np.linspace(0.5, 0.9, 41)
        profile = lag_profile(testing.decaying(rates, steps=10))
        assert float(profile["ratio"].sel(lag=3)) == pytest.approx(0.7**3)
        low, high = (float(profile[name].sel(lag=3)) for name in ("low", "high"))
        assert 0.6**3 < low < 0.7**3 < high < 0.8**3

    def test_interval_is_the_same_again_and_wider_at_more_confidence(self):
        tree = testing.decaying(np.linspace(0.5, 0.9, 20), steps=10)
        xr.testing.assert_identical(lag_profile(tree), lag_profile(tree))
        wide, narrow = lag_profile(tree, confidence=0.99), lag_profile(tree, confidence=0.5)
        assert (wide["low"][1:] < narrow["low"][1:]).all()

    def test_one_sample_has_no_interval(self):
        profile = lag_profile(testing.decaying(0.5))
        assert profile[["low", "high"]].isnull().all().to_array().all()
        assert ratio_text(profile, 1) == "0.5 of lag 0, 1 samples"

    def test_interval_of_the_decay_rate_covers_the_spread_of_samples(self):
        found = decay_rate(testing.decaying(np.linspace(0.6, 0.8, 21), steps=40))
        assert np.log(0.6) < float(found["low"]) < np.log(0.7) < float(found["high"]) < np.log(0.8)

    def test_samples_without_signal_are_counted_not_averaged(self):
        dataset = leaf(testing.decaying(0.5, samples=4))
        dataset["hidden_gradient"][0] = 0.0
        dataset["hidden_gradient"][1, 3] = np.nan
        dataset["hidden_gradient"][2, 5] = np.inf
        profile = lag_profile(dataset)
        assert (int(profile["no_signal"]), int(profile["non_finite"])) == (1, 2)
        assert (profile["samples"] == 1).all()
        np.testing.assert_allclose(profile["ratio"], 0.5 ** np.arange(50), rtol=1e-12)
        assert memory_horizon(dataset).isnull().values.tolist() == [True, True, True, False]
        assert horizon_text(memory_horizon(dataset)).values.tolist() == [*["not measured"] * 3, "6"]
        assert int(memory_horizon_median(dataset)["samples"]) == 1

    def test_no_usable_sample_at_all(self):
        dataset = leaf(testing.decaying(0.5, samples=2))
        dataset["hidden_gradient"][:] = 0.0
        profile = lag_profile(dataset)
        assert profile["ratio"].isnull().all()
        assert ratio_text(profile, 3) == "not measured: no sample has a signal at lag 0"
        assert vanishing_fraction(dataset)["vanished"].isnull().all()
        assert horizon_text(memory_horizon_median(dataset)).item() == "not measured"
        assert np.isnan(decay_rate(dataset)["rate"])
        assert gradient_instability(dataset).values.tolist() == [0.0, 0.0]

    def test_signal_that_reaches_half_of_the_samples(self):
        dataset = leaf(testing.decaying(0.5, samples=2, steps=20))
        dataset["hidden_gradient"][0, :10] = 0.0
        profile = lag_profile(dataset)
        assert float(profile["ratio"].sel(lag=15)) == 0.0
        assert np.isfinite(profile["high"].sel(lag=15))


def run(steps=3):
    leaves = [leaf(testing.constant_gates(keep, samples=3, steps=15)) for keep in (0.5, 0.7, 0.9)[:steps]]
    return xr.concat(leaves, xr.DataArray([0, 50, 100], dims="step", name="step"))


class TestRuns:
    @pytest.mark.parametrize("measure", ON_GATES)
    def test_every_training_step_is_what_it_is_alone(self, measure):
        whole = measure(run())
        for number, step in enumerate((0, 50, 100)):
            same(whole.isel(step=number, drop=True), measure(run().sel(step=step, drop=True)))

    @pytest.mark.parametrize("measure", ON_GATES)
    def test_lazy_arrays_stay_unread_and_give_the_same_numbers(self, measure):
        expected = measure(run())
        read = []

        def reading(block):
            read.append(block.shape)
            return block

        lazy = run().chunk({"step": 1, "sample": 2, "time": 4})
        for name in lazy.data_vars:
            # The certificate is read at once: it decides whether there is a diagnosis.
            if not name.startswith("certificate"):
                lazy[name].data = lazy[name].data.map_blocks(reading, meta=np.array(()))
        found = measure(lazy)
        parts = found.data_vars.values() if isinstance(found, xr.Dataset) else [found]
        assert all(part.chunks is not None for part in parts)
        assert not read
        with dask.config.set(scheduler="synchronous"):
            same(expected, found.compute())
        assert read

    def test_first_broken_training_step(self):
        broken = leaf(testing.nonfinite("cell", time=3))
        steps = xr.concat([leaf(testing.constant_gates(samples=3, steps=20)), broken], "step")
        found = first_nonfinite(steps.chunk())
        assert found.where == {"step": 1, "sample": 1, "time": 3, "unit": 2}


class TestFirstNonFinite:
    def test_finite_capture(self):
        assert first_nonfinite(testing.bidirectional()) is None

    @pytest.mark.parametrize("variable", ["hidden", "cell", "hidden_gradient", "cell_gradient"])
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_place_and_value(self, variable, value):
        found = first_nonfinite(testing.nonfinite(variable, value=value, sample=2, time=9, unit=1))
        assert (found.layer, found.variable) == ("/rnn", variable)
        assert found.where == {"sample": 2, "time": 9, "unit": 1}
        np.testing.assert_equal(found.value, value)

    def test_states_come_before_the_gates_of_the_next_step(self):
        dataset = leaf(testing.nonfinite("hidden", time=7))
        dataset["gate_activation"].loc[{"sample": 1, "time": 8, "gate": "forget", "unit": 0}] = np.nan
        assert first_nonfinite(dataset).variable == "hidden"
        dataset["gate_activation"].loc[{"sample": 1, "time": 7, "gate": "forget", "unit": 0}] = np.nan
        found = first_nonfinite(dataset)
        assert (found.variable, found.where["gate"]) == ("gate_activation", "forget")
        assert str(found) == "nan in gate_activation of this layer: sample 1, time 7, gate forget, unit 0"

    def test_time_is_that_of_the_pass(self):
        dataset = leaf(testing.bidirectional(steps=10))
        dataset["hidden"].loc[{"direction": "forward", "time": [4, 5]}] = np.nan
        assert first_nonfinite(dataset).where["time"] == 4
        dataset["hidden"].loc[{"direction": "backward", "time": [7, 8]}] = np.nan
        found = first_nonfinite(dataset).where
        assert (found["time"], found["direction"]) == (8, "backward")
        gradients = leaf(testing.bidirectional(steps=10))
        gradients["hidden_gradient"].loc[{"direction": "backward", "time": [2, 3]}] = np.nan
        assert first_nonfinite(gradients).where["time"] == 2  # lag 2; the backward pass ends at time 9

    def test_layers_forward_in_order_and_backward_in_reverse(self):
        lower, upper = (leaf(testing.nonfinite("hidden_gradient")) for _ in range(2))
        tree = xr.DataTree.from_dict({"/lower": lower, "/upper": upper})
        assert first_nonfinite(tree).layer == "/upper"
        tree["lower"]["hidden"][0, 5, 0] = np.nan
        assert (first_nonfinite(tree).layer, first_nonfinite(tree).variable) == ("/lower", "hidden")

    def test_weights_come_first_and_the_loss_after_the_states(self):
        dataset = leaf(testing.nonfinite("hidden_gradient"))
        dataset["loss"] = np.nan
        assert first_nonfinite(dataset).variable == "loss"
        assert first_nonfinite(dataset).where == {}
        dataset["kernel"][0, 1, 2] = np.inf
        assert first_nonfinite(dataset).where == {"feature": 0, "gate": "forget", "unit": 2}


class TestRefusals:
    @pytest.mark.parametrize("measure", ON_GATES)
    @pytest.mark.parametrize("certificate", ["certificate_weights", "certificate_time"])
    def test_failed_certificate(self, measure, certificate):
        dataset = leaf(testing.constant_gates(steps=6))
        dataset[certificate] = 1e-5
        with pytest.raises(DiagnosticError, match=rf"{certificate} is 1e-05, float64 allows 1e-12"):
            measure(dataset)

    @pytest.mark.parametrize(
        ("dtype", "bar", "limit"),
        [
            ("float64", 1e-12, 1e-6),
            ("float32", 1e-5, 1e-3),
            ("float16", 1e-2, 1e-1),
            ("bfloat16", 5e-2, 2e-1),
        ],
    )
    def test_bar_and_limit_are_those_of_the_dtype(self, dtype, bar, limit):
        dataset = leaf(testing.decaying()).assign_attrs(dtype=dtype)
        assert memory_horizon(dataset.assign(certificate_time=bar)).values.tolist() == [6]
        for above in (bar * 1.01, limit):
            with pytest.warns(tt.ThroughTimeWarning, match=f"above {bar:.0e}: digits beyond that error"):
                assert memory_horizon(dataset.assign(certificate_time=above)).values.tolist() == [6]
        with pytest.raises(DiagnosticError, match=f"{dtype} allows {bar:.0e}"):
            memory_horizon(dataset.assign(certificate_time=limit * 1.01))

    def test_one_direction_or_training_step_is_enough(self):
        dataset = leaf(testing.bidirectional()).assign(certificate_time=("direction", [0.0, 1.0]))
        with pytest.raises(DiagnosticError, match="certificate_time is 1"):
            lag_profile(dataset)

    def test_certificate_that_is_not_defined_passes(self):
        dataset = leaf(testing.decaying()).assign(certificate_weights=np.nan)
        assert memory_horizon(dataset).values.tolist() == [6]

    @pytest.mark.parametrize("threshold", [0, 1, -0.1, 2.0, np.nan, np.inf, "small"])
    def test_threshold_outside_its_range(self, threshold):
        for measure in (memory_horizon, memory_horizon_median, vanishing_fraction):
            with pytest.raises(ValueError, match="threshold="):
                measure(testing.decaying(), threshold=threshold)

    @pytest.mark.parametrize("setting", [{"low": 0.9, "high": 0.1}, {"low": 0.0}, {"high": 1.5}])
    def test_saturation_ends(self, setting):
        with pytest.raises(DiagnosticError, match=r"low=|high="):
            saturation(testing.constant_gates(), **setting)

    @pytest.mark.parametrize("lags", [[-1], [1.5], ["3"]])
    def test_lags_are_whole(self, lags):
        with pytest.raises(DiagnosticError, match="whole numbers"):
            lag_profile(testing.decaying(), lags=lags)

    @pytest.mark.parametrize(
        ("measure", "variable"),
        [
            (lag_profile, "hidden_gradient"),
            (memory_horizon, "cell_gradient"),
            (effective_steps, "step_contribution"),
            (timescale, "gate_activation"),
            (saturation, "gate_activation"),
            (temporal_coherence, "gate_gradient"),
            (recurrent_spectrum, "recurrent_kernel"),
            (lyapunov_spectrum, "input"),
            (unit_correlation, "hidden"),
        ],
    )
    def test_missing_variable_is_named(self, measure, variable):
        with pytest.raises(
            tt.SchemaError, match=rf"No '{variable}' for rnn.*It has: .*recurrent_kernel_gradient"
        ):
            measure(leaf(testing.constant_gates()).drop_vars(variable))

    def test_simple_rnn_has_no_timescale(self):
        with pytest.raises(DiagnosticError, match="simple_rnn has no gate that keeps"):
            timescale(testing.decaying())

    def test_omega_of_an_lstm_with_a_loss_on_the_way(self):
        dataset = leaf(testing.constant_gates(steps=5))
        each = dataset["hidden_gradient"].rename(unit="output_unit")
        with pytest.raises(DiagnosticError, match="enters this layer at every step"):
            gradient_instability(dataset.drop_vars("output_gradient").assign(output_gradient=each))

    def test_sample_dim_has_to_stay(self):
        with pytest.raises(tt.SchemaError, match=r"isel\(sample=\[0\]\)"):
            memory_horizon(leaf(testing.decaying()).isel(sample=0))

    def test_unknown_dtype_and_shapes(self):
        with pytest.raises(DiagnosticError, match="'int8'"):
            lag_profile(leaf(testing.decaying()).assign_attrs(dtype="int8"))
        with pytest.raises(DiagnosticError, match="square"):
            diagnostics.transient_growth(np.ones((2, 3)))
        with pytest.raises(DiagnosticError, match="shape"):
            diagnostics.lyapunov_exponents(np.ones((3, 2, 2)))
        with pytest.raises(DiagnosticError, match="below 1"):
            diagnostics.sensitivity([1.0])

    def test_nothing_of_a_capture_is_changed(self):
        dataset = leaf(testing.constant_gates(samples=2, steps=12))
        before = dataset.copy(deep=True)
        for measure in ON_GATES:
            measure(dataset)
        xr.testing.assert_identical(dataset, before)


def test_an_output_without_time_is_made_after_all_steps():
    leaf = testing.decaying(samples=3)["rnn"].to_dataset().copy(deep=True)
    leaf["input"][{"sample": 1, "time": 30}] = np.nan
    leaf["output"][{"sample": 1}] = np.nan
    found = tt.diagnostics.first_nonfinite(leaf)
    assert (found.variable, found.where["time"]) == ("input", 30)
