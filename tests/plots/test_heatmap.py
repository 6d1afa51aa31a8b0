"""What a heatmap holds: the capture's own values, by name, on one scale, every special kind told apart."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from scipy import ndimage
from tests.plots.trees import heading, with_steps

from throughtime import PictureError, SchemaError, plots, testing
from throughtime.picture import Image, Picture, Text
from throughtime.picture._drawing.colors import CODE, SPECIALS, TOP, Colors, counted
from throughtime.picture._drawing.palettes import palette
from throughtime.picture._drawing.scale import FLOOR
from throughtime.picture._render.keys import keys, masked_boxes, nonfinite


def images(picture: Picture) -> list[Image]:
    return picture.marks(Image)


def test_one_sample_is_one_image_of_the_captured_values():
    tree = testing.decaying(0.5, steps=20, units=3)
    (image,) = images(plots.heatmap(tree))
    np.testing.assert_array_equal(image.values, tree["rnn"]["hidden_gradient"].values[0].T)
    assert image.x == (-0.5, 19.5)
    assert image.y == (-0.5, 2.5)


def test_axes_are_placed_by_name():
    tree = testing.bidirectional(samples=2, steps=9, units=3)
    values = tree["rnn"]["hidden_gradient"]
    picture = plots.heatmap(tree, rows="time", columns="unit")
    assert [panel.title for panel in picture.panels] == ["forward", "backward"]
    shown = images(picture)
    assert [image.name for image in shown] == ["sample 0", "sample 1"] * 2
    expected = values.sel(direction="backward").isel(sample=1).transpose("time", "unit")
    np.testing.assert_array_equal(shown[3].values, expected.values)


def test_slider_has_a_frame_for_each_of_its_words():
    tree = testing.constant_gates(samples=3, steps=8)
    picture = plots.heatmap(tree, "cell", sliders=["sample"])
    (image,) = images(picture)
    assert picture.sliders[0].words == ("0", "1", "2")
    assert picture.frame_words(2) == "sample 2"
    values = tree["rnn"]["cell"].transpose("sample", "unit", "time").values
    np.testing.assert_array_equal(image.values, values)


def test_training_steps_go_to_a_slider_and_the_last_one_shows():
    tree = with_steps()
    picture = plots.heatmap(tree, sliders=["sample"])
    assert [slider.name for slider in picture.sliders] == ["sample", "step"]
    assert picture.sliders[1].words == ("0", "10", "200")
    assert picture.frame_words(picture.shown) == "sample 0 · step 200"
    backward = images(picture)[1]
    expected = tree["rnn"]["hidden_gradient"].sel(direction="backward", step=10).isel(sample=1)
    frame = 1 * 3 + 1
    np.testing.assert_array_equal(backward.frame(frame)[0], expected.transpose("unit", "time").values)


def test_all_panels_share_one_scale_that_ends_at_the_largest():
    tree = testing.bidirectional((0.5, 0.9), samples=3)
    shown = images(plots.heatmap(tree))
    assert len({id(image.colors) for image in shown}) == 1
    scale = shown[0].colors.scale
    largest = float(np.abs(tree["rnn"]["hidden_gradient"]).max())
    assert (scale.kind, scale.low, scale.high) == ("log10", largest * FLOOR, largest)


def test_share_false_divides_each_image_by_its_own_largest_and_says_so():
    tree = testing.decaying([0.5, 0.9])
    scaled = tree["rnn"].to_dataset()
    scaled["hidden_gradient"] = scaled["hidden_gradient"] * xr.DataArray([1.0, 100.0], dims="sample")
    first, second = images(plots.heatmap(scaled, share=False))
    assert np.abs(first.values).max() == np.abs(second.values).max() == 1.0
    assert "÷ largest of each" in first.colors.label


def test_states_are_linear_around_zero_and_gates_have_their_range():
    tree = testing.constant_gates(samples=1)
    hidden = images(plots.heatmap(tree, "hidden"))[0].colors.scale
    assert hidden.kind == "linear"
    assert hidden.low == -hidden.high
    gates = tree["rnn"]["gate_activation"].sel(gate=["input", "forget"])
    scale = images(plots.heatmap(gates))[0].colors.scale
    assert (scale.low, scale.high) == (0.0, 1.0)


def test_title_says_quantity_layer_samples_and_step():
    leaf = with_steps()["rnn"].to_dataset()
    assert plots.heatmap(leaf.sel(step=200)).subtitle == "|dL/dhₜ| · rnn · 2 samples · step 200"
    assert plots.heatmap(testing.decaying(), scale="linear").subtitle == "dL/dhₜ · rnn · 1 sample"


def test_many_samples_are_chosen_evenly_and_the_title_says_so():
    tree = testing.decaying(samples=200, steps=3)
    picture = plots.heatmap(tree)
    assert len(images(picture)) == 64
    assert "64 of 200 samples" in heading(picture)
    words = picture.panels[0].of(Text)[0].words
    assert (words[0], words[-1]) == ("0", "199")


SPECIAL_VALUES = xr.DataArray(
    [[1.0, 1e-9, 0.0, np.nan], [np.inf, -np.inf, 0.5, 3.0]],
    dims=("unit", "time"),
    coords={"valid": ("time", [True] * 4)},
    name="hidden_gradient",
)


@pytest.mark.parametrize(
    ("special", "place"),
    [
        ("above", (1, 3)),
        ("zero", (0, 2)),
        ("nan", (0, 3)),
        ("positive_infinity", (1, 0)),
        ("negative_infinity", (1, 1)),
    ],
)
@pytest.mark.parametrize("scale", ["log10", "signed_log", "linear"])
def test_special_value_has_a_code_and_a_colour_of_its_own(special, place, scale):
    limits = (-2.0, 2.0) if scale == "linear" else (1e-3, 2.0)
    (image,) = images(plots.heatmap(SPECIAL_VALUES, scale=scale, limits=limits))
    codes = image.colors.codes(image.values)
    assert codes[place] == CODE[special]
    assert counted(codes)[special] == 1
    assert 0 <= codes[0, 0] <= TOP
    assert 0 <= codes[1, 2] <= TOP


def test_below_the_floor_and_below_a_limit_are_told_apart_from_zero():
    by_floor = images(plots.heatmap(SPECIAL_VALUES))[0]
    assert by_floor.colors.codes(by_floor.values)[0, 1] == CODE["below"]
    by_limit = images(plots.heatmap(SPECIAL_VALUES, limits=(1e-3, 2.0)))[0]
    assert by_limit.colors.codes(by_limit.values)[0, 1] == CODE["clipped_low"]
    signed = images(plots.heatmap(-SPECIAL_VALUES, scale="signed_log", limits=(1e-3, 2.0)))[0]
    codes = signed.colors.codes(signed.values)
    assert (codes[0, 1], codes[1, 3]) == (CODE["below"], CODE["clipped_low"])


def test_masked_steps_have_a_code_and_hatched_boxes():
    tree = testing.with_masks([20, 5], steps=20)
    whole, short = images(plots.heatmap(tree))
    assert whole.valid is None or whole.valid.all()
    codes = short.colors.codes(short.values, short.valid)
    assert (codes[:, 5:] == CODE["masked"]).all()
    assert (codes[:, :5] >= 0).all()
    (box,) = masked_boxes(short, 0)
    left, right = short.x[0] + (short.x[1] - short.x[0]) * 5 / 20, short.x[1]
    np.testing.assert_allclose(box, [left, short.y[0], right, short.y[1]])


def test_every_special_colour_is_unlike_all_others():
    fixed = [Colors(palette(name), None).listed() for name in ("vik", "batlow")]
    for listed in fixed:
        specials = np.array([rgb(color) for color in listed[: len(SPECIALS)]])
        usual = np.array([rgb(color) for color in listed[len(SPECIALS) :]])
        apart = np.abs(specials[:, None] - specials[None]).sum(-1) + 1000 * np.eye(len(specials))
        assert apart.min() >= 17, "two specials look alike"
        ends = usual[[0, 255]]
        assert np.abs(specials[:, None] - ends[None]).sum(-1).min() >= 40, "a special looks like an end"


@pytest.mark.parametrize("cmap", ["vik", "bwr", "RdBu_r", "batlow"])
@pytest.mark.parametrize("scale", ["linear", "signed_log"])
def test_exact_zero_is_unlike_the_smallest_values(cmap, scale):
    values = xr.DataArray([[0.0, 1.0, -1.0]], dims=("unit", "time"), name="hidden")
    colors = images(plots.heatmap(values, scale=scale, cmap=cmap))[0].colors
    zero, middle = rgb(colors.color_of("zero")), rgb(colors.palette[127])
    assert sum(abs(a - b) for a, b in zip(zero, middle, strict=True)) > 40


def rgb(color: str) -> tuple[int, ...]:
    return tuple(int(color[place : place + 2], 16) for place in (1, 3, 5))


def test_what_is_not_finite_is_marked_where_it_is():
    tree = testing.nonfinite("cell_gradient", value=-np.inf, sample=1, time=7, unit=2)
    image = images(plots.heatmap(tree["rnn"]["cell_gradient"].isel(sample=1)))[0]
    found = {kind: (x, y) for kind, x, y in nonfinite(image, 0)}
    np.testing.assert_allclose(found["negative_infinity"], ([7.0], [2.0]))
    assert set(found["nan"][0]) == set(np.arange(7.0))


def test_legend_names_and_counts_the_specials_only():
    told = [key.words for key in keys(plots.heatmap(SPECIAL_VALUES, limits=(1e-3, 2.0)))]
    assert told == [
        "exactly 0 (12 %)",
        "below 0.001, clipped (12 %)",
        "above 2, clipped (12 %)",
        "NaN (12 %)",
        "+∞ (12 %)",
        "−∞ (12 %)",
    ]
    assert keys(plots.heatmap(testing.perfect_memory())) == []


def test_unknown_axis_lists_those_there_are():
    with pytest.raises(PictureError, match=r"rows='units'.*sample, time, unit"):
        plots.heatmap(testing.decaying(), rows="units")
    with pytest.raises(PictureError, match="only one place"):
        plots.heatmap(testing.decaying(), sliders=["time"])


@pytest.mark.parametrize(
    ("look", "told"),
    [
        ({"scale": "log"}, "log10, signed_log, linear"),
        ({"limits": (2, 1)}, "smaller one first"),
        ({"limits": 3}, "two finite numbers"),
        ({"limits": (0, 1)}, "positive"),
        ({"cmap": "rainbowish"}, "'vik'"),
        ({"width": -1}, "inches"),
        ({"colour": "red"}, "limits, share, scale, cmap"),
    ],
)
def test_wrong_look_is_refused_with_the_choices(look, told):
    with pytest.raises(PictureError, match=told):
        plots.heatmap(testing.decaying(), **look)


def test_missing_quantity_names_the_call_that_captures_it():
    leaf = testing.decaying()["rnn"].to_dataset().drop_vars("gate_gradient")
    with pytest.raises(SchemaError, match=r"quantities=\['gate_gradient'\]"):
        plots.heatmap(leaf, "gate_gradient")
    with pytest.raises(SchemaError, match=r"tt.lag_matrix\(model, x, y\)"):
        plots.heatmap(leaf, "lag_matrix")


def test_several_layers_are_listed():
    leaf = testing.decaying()["rnn"].to_dataset()
    with pytest.raises(SchemaError, match="a, b"):
        plots.heatmap(xr.DataTree.from_dict({"/a": leaf, "/b": leaf}))


def test_a_picture_leaves_its_data_alone():
    tree = testing.nonfinite()
    before = tree["rnn"].to_dataset().copy(deep=True)
    plots.heatmap(tree, share=False)
    xr.testing.assert_identical(tree["rnn"].to_dataset(), before)


def test_cells_of_an_image_are_units_in_a_row():
    values = xr.DataArray(
        np.arange(48.0).reshape(1, 2, 2, 3, 4), dims=("sample", "time", "row", "column", "channel")
    )
    leaf = xr.Dataset({"hidden": values}, attrs={"kind": "conv_lstm"})
    (image,) = images(plots.heatmap(leaf, "hidden"))
    np.testing.assert_array_equal(image.values, np.arange(48.0).reshape(2, 24).T)
    by_row = plots.heatmap(values.isel(channel=0), rows="row", sliders=["column"])
    assert images(by_row)[0].values.shape == (3, 2, 2)


def test_no_spike_is_lost_on_the_way_to_the_pixels():
    rng = np.random.default_rng(0)
    values = np.full((400, 5000), 1e-6)
    rows, columns = np.arange(5, 400, 10), rng.permutation(np.arange(60, 5000, 124))[:40]
    values[rows[: len(columns)], columns] = 1.0
    picture = plots.heatmap(xr.DataArray(values, dims=("unit", "time"), name="hidden_gradient"))
    figure = picture.to_matplotlib()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    box = figure.axes[0].get_window_extent()
    image = np.asarray(canvas.buffer_rgba())[::-1, :, :3]
    image = image[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)]
    top = rgb(images(picture)[0].colors.palette[-1])
    _, seen = ndimage.label((image == top).all(axis=-1))
    assert seen == len(columns) == 40
