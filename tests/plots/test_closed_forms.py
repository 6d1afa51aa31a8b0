"""Pictures of captures whose answer is known: what is drawn is the closed form, at its place on the axis."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from tests.plots.trees import heading, with_steps

from throughtime import DiagnosticError, PictureError, SchemaError, plots, testing
from throughtime.picture import Band, Dots, Image, Line, Panel, Text


def lines(panel: Panel, start: str = "") -> list[Line]:
    return [line for line in panel.of(Line) if line.details and line.label.startswith(start)]


def told(line: Line, name: str) -> np.ndarray:
    return dict(line.details)[name]


def position(values, low: float, high: float) -> np.ndarray:
    """Place on a logarithmic axis, written anew."""
    share = (np.log10(np.maximum(values, 1e-300)) - np.log10(low)) / (np.log10(high) - np.log10(low))
    return np.clip(share, 0, 1)


def test_lines_of_a_decaying_gradient_fall_by_its_rate():
    (panel,) = plots.lines(testing.decaying(0.5, steps=20, units=1)).panels
    (line,) = lines(panel)
    expected = 0.5 ** np.arange(20)[::-1]
    np.testing.assert_allclose(told(line, "value"), expected)
    np.testing.assert_allclose(line.y, position(expected, 1e-6, 1.0), atol=1e-12)  # the least is 1.9e-6
    np.testing.assert_array_equal(line.x, np.arange(20))


def test_each_unit_has_a_cell_of_its_own():
    tree = testing.constant_gates(samples=1, steps=5, units=6)
    (panel,) = plots.lines(tree, "hidden", columns=3).panels
    (line,) = lines(panel)
    value, which = told(line, "value"), told(line, "panel")
    for unit in range(6):
        np.testing.assert_array_equal(
            value[which == str(unit)][:5], tree["rnn"]["hidden"].isel(sample=0, unit=unit).values
        )
        inside = line.x[which == str(unit)][:5]
        assert (np.floor(inside) == unit % 3).all()
        row = np.floor(line.y[which == str(unit)][:5])
        assert (row == 1 - unit // 3).all()
    assert np.isnan(line.y[5::6]).all(), "a gap between panels"
    assert panel.of(Text)[0].words == tuple(f"unit {unit}" for unit in range(6))


def test_many_samples_are_a_median_with_a_band():
    rates = np.linspace(0.1, 0.9, 9)
    (panel,) = plots.lines(testing.decaying(rates, steps=4, units=1)).panels
    (line,), (band,) = lines(panel), panel.of(Band)
    ages = np.arange(4)[::-1]
    np.testing.assert_allclose(told(line, "value"), 0.5**ages)
    np.testing.assert_allclose(band.high, position(np.quantile(rates, 0.9) ** ages, 1e-3, 1), atol=0.01)
    assert line.label == "median of 9 samples"


def test_masked_steps_have_no_line():
    (panel,) = plots.lines(testing.with_masks([3, 1], steps=5, units=1)).panels
    first, second = lines(panel)
    assert np.isnan(first.y).tolist() == [False] * 3 + [True] * 2
    assert np.isnan(second.y).tolist() == [False] + [True] * 4


def test_lines_say_what_they_do_not_draw():
    assert "NaN or ∞ not drawn" in heading(plots.lines(testing.nonfinite()))
    clipped = plots.lines(testing.decaying(0.5, steps=8, units=1), limits=(0.1, 1))
    assert "4 clipped" in heading(clipped)


def test_scatter_has_a_dot_a_sample_and_unit():
    vectors = xr.DataArray(
        np.array([[1.0, -0.5], [0.25, 0.0]]), dims=("sample", "unit"), name="output_gradient"
    )
    (panel,) = plots.scatter(vectors).panels
    (dots,) = panel.of(Dots)
    np.testing.assert_array_equal(told(dots, "value"), [1.0, -0.5, 0.25, 0.0])
    np.testing.assert_array_equal(np.round(dots.x), [0, 1, 0, 1])
    assert dots.y[0] == 1.0
    assert dots.y[1] < 0.5 < dots.y[2] < 1.0
    assert dots.y[3] == 0.5


def test_scatter_marks_what_is_not_finite_and_refuses_time():
    vectors = xr.DataArray([[1.0, np.nan, np.inf]], dims=("sample", "unit"), name="output_gradient")
    labels = [dots.label for dots in plots.scatter(vectors).panels[0].of(Dots)]
    assert labels == ["", "1 NaN", "1 +∞"]
    with pytest.raises(PictureError, match=r"isel\(time=-1\)"):
        plots.scatter(testing.decaying(), "hidden_gradient")


def test_histogram_shares_sum_to_what_is_not_told_in_words():
    values = xr.DataArray(
        [0.0, 0.0, 1.0, 0.1, 1e-12, np.nan, np.inf, 0.5], dims="unit", name="hidden_gradient"
    )
    (panel,) = plots.histogram(values, bins=10).panels
    (line,) = lines(panel)
    assert told(line, "share")[::2].sum() == pytest.approx(3 / 8)
    for words in ("25 % exactly 0", "12 % below", "12 % NaN", "12 % ±∞"):
        assert words in line.label


def test_histogram_of_units_is_a_column_a_unit():
    tree = testing.constant_gates(samples=2, steps=10, units=9)
    (panel,) = plots.histogram(tree, "hidden", by="unit", bins=12).panels
    (image,) = panel.of(Image)
    assert image.values.shape == (12, 9)
    np.testing.assert_allclose(image.values.sum(axis=0), 1.0)


def test_histogram_ignores_masked_steps_and_cuts_a_peak_in_words():
    tree = testing.with_masks([2, 1], steps=8, units=1)
    assert "3 values" in heading(plots.histogram(tree, "hidden"))
    rng = np.random.default_rng(0)
    peaked = np.concatenate([np.full(9000, 0.3), rng.uniform(-1, 1, 1000)])
    picture = plots.histogram(xr.DataArray(peaked, dims="unit", name="hidden"))
    (line,) = lines(picture.panels[0])
    assert "peak 90 % cut" in line.label
    assert max(line.y) < told(line, "share").max()


def test_ridge_has_a_base_line_a_training_step():
    panel = plots.histogram(with_steps(), by="step").panels[0]
    assert [word for _, word in panel.y.ticks] == ["0", "10", "200"]
    assert [band.low[0] for band in panel.of(Band)] == [2.0, 1.0, 0.0]


def test_lag_profile_is_the_rate_to_the_lag():
    picture = plots.lag_profile(testing.decaying([0.5, 0.5, 0.5], steps=12))
    (line,) = lines(picture.panels[0], "median of 3 samples")
    np.testing.assert_allclose(told(line, "R"), 0.5 ** np.arange(12))


def test_lag_profile_ends_where_the_curve_falls_below_the_floor():
    (panel,) = plots.lag_profile(testing.decaying([0.1, 0.1], steps=20)).panels
    (line,) = lines(panel, "median of 2 samples")
    on_the_end = np.flatnonzero(line.y == 0)
    assert on_the_end.tolist() == [8], "the first of the values below 2⁻²⁶, and no plateau after it"
    assert np.isnan(line.y[9:]).all()
    np.testing.assert_allclose(told(line, "R"), 0.1 ** np.arange(20.0))


def test_lag_profile_counts_each_direction_from_its_own_end():
    forward, backward = plots.lag_profile(testing.bidirectional((0.5, 0.9), samples=2, steps=9)).panels
    for panel, rate in ((forward, 0.5), (backward, 0.9)):
        np.testing.assert_allclose(told(lines(panel)[0], "R"), rate ** np.arange(9))


def test_lag_matrix_has_a_zero_triangle():
    picture = plots.lag_matrix(testing.lag_matrix_of(0.8, samples=2, steps=10))
    (image,) = picture.panels[0].of(Image)
    lag = np.arange(10)[:, None] - np.arange(10)
    np.testing.assert_allclose(image.values, np.where(lag >= 0, 0.8 ** np.maximum(lag, 0), 0), rtol=1e-12)
    with pytest.raises(SchemaError, match=r"tt.lag_matrix\(model, x, y\) captures it"):
        plots.lag_matrix(testing.decaying())


def test_gradient_flow_has_a_curve_a_layer_and_a_panel_a_direction():
    leaves = {
        f"/{name}": testing.decaying(rate, steps=9)["rnn"].to_dataset()
        for name, rate in (("low", 0.9), ("up", 0.5))
    }
    both = testing.bidirectional((0.7, 0.6), steps=9)["rnn"].to_dataset()
    forward, backward = plots.gradient_flow(xr.DataTree.from_dict({**leaves, "/both": both})).panels
    assert [line.label for line in lines(forward)] == ["low", "up", "both"]
    assert [line.label for line in lines(backward)] == ["both"]
    np.testing.assert_allclose(told(lines(forward)[1], "value"), 0.5 ** np.arange(9)[::-1])
    np.testing.assert_allclose(told(lines(backward)[0], "value"), 0.6 ** np.arange(9))


def test_gradient_flow_of_an_explosion_shows_all_of_it():
    (panel,) = plots.gradient_flow(testing.exploding(2.0, steps=60)).panels
    (line,) = lines(panel)
    assert 0 < line.y.min() < line.y.max() == 1.0
    assert (np.diff(line.y) < 0).all()


def test_gradient_flow_without_gradients_names_the_call():
    leaf = testing.decaying()["rnn"].to_dataset()
    states = leaf.drop_vars([name for name in leaf.data_vars if str(name).endswith("_gradient")])
    with pytest.raises(SchemaError, match=r"tt.capture\(model, x, y\)"):
        plots.gradient_flow(states)


def test_contributions_are_shares_of_each_sample():
    picture = plots.contributions(testing.decaying([0.5, 0.5], steps=30))
    _, shares = picture.panels
    (line,) = lines(shares)
    np.testing.assert_allclose(told(line, "share")[-3:], [0.125, 0.25, 0.5], rtol=1e-6)
    assert told(line, "share").sum() == pytest.approx(1.0)
    assert picture.title == "90 % of the step contribution of rnn lies in 4 of 30 timesteps, 26 to 29"


def test_spectrum_lies_where_the_eigenvalues_are():
    circle, exponents = plots.spectrum(testing.decaying(0.5, units=3)).panels
    (dots,) = circle.of(Dots)
    np.testing.assert_allclose((dots.x, dots.y), ([0.5] * 3, [0.0] * 3), atol=1e-12)
    ring = circle.of(Line)[0]
    np.testing.assert_allclose(np.hypot(ring.x, ring.y), 1.0)
    np.testing.assert_allclose(told(lines(exponents)[0], "value"), np.log(0.5))


def test_spectrum_keeps_the_circle_large_and_counts_what_coincides():
    leaf = testing.decaying(0.5, units=6)["rnn"].to_dataset()
    kernel = leaf["recurrent_kernel"]
    values = np.diag([30.0, *[0.5] * 5]).reshape(kernel.shape)
    (circle,) = plots.spectrum(leaf.assign(recurrent_kernel=kernel.copy(data=values)), samples=0).panels
    inside, beyond = circle.of(Dots)
    np.testing.assert_allclose(inside.x, 0.5)
    assert dict(beyond.details)["size"] == pytest.approx([30.0])
    assert circle.x.limits[1] / 20 < beyond.x[0] < circle.x.limits[1] < 30
    (text,) = circle.of(Text)
    assert [(x, word.strip()) for x, word in zip(text.x, text.words, strict=True)] == [(0.5, "×5")]


@pytest.mark.parametrize("rate", [0.01, 0.9])
def test_axis_of_exponents_has_the_largest(rate):
    (_, exponents) = plots.spectrum(testing.decaying(rate, units=3)).panels
    low, high = exponents.y.limits
    assert low <= np.log(rate) < high


def test_axis_of_lags_ends_near_the_data_or_at_the_threshold():
    for rate, has_threshold in ((0.99, False), (0.9, True)):
        (panel,) = plots.lag_profile(testing.decaying(rate, steps=30)).panels
        assert any("threshold" in line.label for line in panel.of(Line)) == has_threshold
        assert panel.of(Line)[-1].y.min() < 0.75


def test_spectrum_without_exponents_says_why():
    assert len(plots.spectrum(testing.decaying(), samples=0).panels) == 1
    large = plots.spectrum(testing.decaying(units=600))
    assert len(large.panels) == 1
    assert "too large" in heading(large)
    broken = testing.constant_gates()
    broken["rnn"]["gate_activation"][:] = broken["rnn"]["hidden"][:] = np.nan
    assert "not finite" in heading(plots.spectrum(broken))


def test_scale_of_reach_holds_what_is_drawn_alone():
    tree = testing.decaying([0.9] * 15 + [0.3], steps=20)  # one sample falls far below the others
    reach = plots.overview(tree).panels[0]
    assert not any("threshold" in line.label for line in reach.of(Line))
    (each,) = plots.lag_profile(tree).panels
    assert any("threshold" in line.label for line in each.of(Line))


def test_of_many_curves_the_ends_are_in_the_legend():
    leaf = testing.decaying()["rnn"].to_dataset()
    tree = xr.DataTree.from_dict({f"/{'encoder/' * 9}{place}": leaf for place in range(12)})
    for panel in (plots.gradient_flow(tree).panels[0], *plots.overview(tree).panels[:2]):
        labels = [line.label for line in panel.of(Line) if "…" in line.label]
        assert [label.rpartition("/")[2] for label in labels] == ["0", "11"]
        assert max(map(len, labels)) == 32


@pytest.mark.parametrize(
    "path", ["{}/block/of/several/recurrent/layers/lstm", "a/block/of/several/{}/layers/lstm"]
)
def test_long_names_that_differ_have_labels_that_differ(path):
    leaf = testing.decaying()["rnn"].to_dataset()
    tree = xr.DataTree.from_dict({f"/{path.format(place)}": leaf for place in range(3)})
    panel = plots.gradient_flow(tree).panels[0]
    assert len({line.label for line in panel.of(Line) if "lstm" in line.label}) == 3


def test_gates_have_value_saturation_and_gradient():
    tree = testing.saturated_gates(left=0.25, right=0.5, steps=40)
    picture = plots.gates(tree, sample=0)
    assert picture.columns == 3
    value, saturated, gradient = picture.panels[3:6]
    expected = tree["rnn"]["gate_activation"].sel(gate="forget").isel(sample=0).transpose("unit", "time")
    np.testing.assert_allclose(value.of(Image)[0].values, expected.values)
    low, high = lines(saturated)
    assert (told(low, "share").mean(), told(high, "share").mean()) == (0.25, 0.5)
    taught = tree["rnn"]["gate_gradient"].sel(gate="forget").isel(sample=0).transpose("unit", "time")
    np.testing.assert_allclose(gradient.of(Image)[0].values, np.abs(taught.values), rtol=1e-9)


def test_gates_of_no_such_sample_or_no_gates_are_refused():
    with pytest.raises(PictureError, match="numbered from 0"):
        plots.gates(testing.constant_gates(), sample=5)
    with pytest.raises(SchemaError, match=r"quantities=\['gate_activation'\]"):
        plots.gates(testing.decaying())


def test_gates_without_gradient_have_two_columns():
    leaf = testing.constant_gates()["rnn"].to_dataset().drop_vars("gate_gradient")
    assert plots.gates(leaf).columns == 2


def test_weights_are_shown_by_gate_with_their_norms():
    tree = testing.saturated_gates(units=3)
    canvas, histogram = plots.weights(tree, share=True).panels
    images = canvas.of(Image)
    assert [image.name for image in images] == ["kernel"] * 4 + ["recurrent_kernel"] * 4 + ["bias"] * 4
    np.testing.assert_array_equal(images[1].values, tree["rnn"]["kernel"].sel(gate="forget").values)
    assert [word for _, word in canvas.x.ticks] == ["input", "forget", "candidate", "output"]
    assert [word for _, word in canvas.y.ticks][2] == "bias\nall 0"
    labels = [line.label for line in histogram.of(Line)]
    assert [label.split(" · ")[0] for label in labels] == ["input", "forget", "candidate", "output"]
    assert labels[0] == "input · ‖W‖ 1.73 ‖U‖ 0 ρ 0"


def test_weights_of_their_own_kinds_end_at_one_and_say_where_that_is():
    canvas, _ = plots.weights(testing.decaying(rate=0.25)).panels
    recurrent = next(image for image in canvas.of(Image) if image.name == "recurrent_kernel")
    np.testing.assert_array_equal(recurrent.values, np.eye(4))
    assert ("recurrent\nkernel\n±0.25") in [word for _, word in canvas.y.ticks]
    with pytest.raises(SchemaError, match="weight_gradients"):
        plots.weights(testing.decaying()["rnn"].to_dataset()[["hidden"]], gradient=True)


def test_compared_sides_share_colours_and_limits():
    sides = testing.decaying(0.5), testing.exploding(1.5)
    picture = plots.compare(*sides, names=("fades", "grows"), kind="heatmap")
    left, right = picture.marks(Image)
    assert left.colors is right.colors
    assert left.colors.scale.high == pytest.approx(0.5 * 1.5**49)
    run = with_steps()["rnn"].to_dataset().isel(direction=0)
    steps = plots.compare(run.sel(step=0), run.sel(step=200), kind="heatmap")
    assert [panel.title for panel in steps.panels] == ["rnn · step 0", "rnn · step 200"]
    assert "step" not in heading(steps)


def test_compared_curves_are_medians_of_norms_on_one_scale():
    sides = testing.decaying([0.5, 0.6, 0.7], steps=20), testing.exploding(1.5, samples=3, steps=30)
    picture = plots.compare(*sides, names=("fades", "grows"))
    for line, tree in zip(lines(picture.panels[0]), sides, strict=True):
        norms = np.linalg.norm(tree["rnn"]["hidden_gradient"].values, axis=-1)
        np.testing.assert_allclose(told(line, "value"), np.median(norms, axis=0), rtol=1e-9)
    assert len({line.color for line in picture.marks(Line)}) == 2
    first, second = (np.median(np.linalg.norm(t["rnn"]["hidden_gradient"].values, axis=-1), 0) for t in sides)
    left = 100 * first[0] / first.max()
    assert picture.title == "At timestep 0 fades has <0.1 % of its peak hidden gradient, and grows has 100 %"
    assert 0 < left < 0.1
    assert second[0] == second.max()
    both = plots.compare(testing.decaying(), testing.bidirectional())
    assert [panel.title for panel in both.panels] == ["forward", "backward"]


def test_compared_sides_need_the_same_panels():
    with pytest.raises(PictureError, match="direction='forward'"):
        plots.compare(testing.decaying(), testing.bidirectional(), kind="heatmap")
    with pytest.raises(PictureError, match="two texts"):
        plots.compare(testing.decaying(), testing.decaying(), names=("one",))


def test_evolution_has_a_row_a_training_step():
    forward, backward = plots.evolution(with_steps()).panels
    values = forward.of(Image)[0].values
    for row, rate in enumerate((0.3, 0.6, 0.9)):
        np.testing.assert_allclose(values[row], rate ** np.arange(20)[::-1], rtol=1e-9)
    np.testing.assert_allclose(backward.of(Image)[0].values[0], 0.5 ** np.arange(20), rtol=1e-9)
    assert [word for _, word in forward.y.ticks] == ["0", "10", "200"]
    with pytest.raises(PictureError, match=r"xarray\.concat"):
        plots.evolution(testing.decaying())


def test_pictures_of_measures_refuse_a_failed_certificate():
    leaf = testing.decaying()["rnn"].to_dataset()
    leaf["certificate_weights"] = 0.5
    with pytest.raises(DiagnosticError):
        plots.lag_profile(leaf)
    with pytest.raises(DiagnosticError):
        plots.contributions(leaf)


def test_gates_and_weights_of_a_projected_lstm_are_as_wide_as_its_cell():
    leaf = testing.constant_gates(samples=1, units=5)["rnn"].to_dataset()
    wide = ["gate_activation", "gate_gradient", "kernel", "recurrent_kernel", "bias"]
    leaf = leaf.assign({name: leaf[name].rename(unit="cell_unit") for name in wide})
    assert plots.gates(leaf).panels[0].of(Image)[0].values.shape == (5, 50)
    assert plots.weights(leaf).panels[0].of(Image)[0].values.shape == (5, 5)


def test_weights_with_axes_of_their_own_name_another_way():
    leaf = testing.decaying()["rnn"].to_dataset()[["kernel"]].rename(unit="channel")
    with pytest.raises(SchemaError, match="show_features_hist"):
        plots.weights(leaf)
