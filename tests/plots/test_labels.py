"""Labels of the caller stand beside the axes; odd ones are drawn, and change nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from tests.plots.trees import heading

import throughtime as tt
from throughtime import plots, testing
from throughtime._capture.label import label_axes
from throughtime.picture import Image
from throughtime.picture._drawing.theme import Theme
from throughtime.picture._render import matplotlib

DATES = np.array(["2024-02-27", "2024-02-28", "2024-03-04", "2024-03-05", "2024-03-06"], "datetime64[ns]")
ODD = {
    "tokens": ["the", "cat", "sat", "the", "mat"],
    "long": ["x" * 200] * 5,
    "emoji": ["🙂", "e\u0301", "\u202eabc", "<b>", "$\\frac$"],
    "dates": DATES,
    "times": DATES + np.timedelta64(61, "m"),
    "numbers": [0.5, 1, 2, 40, 41],
}
PICTURES = {
    "heatmap": plots.heatmap,
    "lines": lambda tree: plots.lines(tree, "step_contribution"),
    "gates": plots.gates,
    "gradient_flow": plots.gradient_flow,
    "contributions": plots.contributions,
    "compare": lambda tree: plots.compare(tree, tree, names=("a", "b")),
    "overview": plots.overview,
}


def labelled(**labels) -> xr.DataTree:
    tree = testing.saturated_gates(left=0.25, right=0.5, steps=5, samples=3)
    label_axes(tree, labels)
    return tree


def time_words(picture) -> list[str]:
    axis = next(panel.x for panel in picture.panels if panel.x.label == "time")
    return [word for _, word in axis.ticks]


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("kind", ODD)
def test_odd_labels_are_drawn(name, kind):
    picture = PICTURES[name](labelled(time=ODD[kind], sample=["a", "a", "🙂" * 40]))
    assert matplotlib.encoded(picture, Theme(dpi=40)).startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["lines", "gates", "gradient_flow", "contributions", "compare"])
def test_time_has_the_callers_words(name):
    assert time_words(PICTURES[name](labelled(time=ODD["tokens"]))) == ODD["tokens"]


def test_dates_print_as_dates_and_times_with_minutes():
    assert time_words(PICTURES["gates"](labelled(time=DATES)))[:2] == ["2024-02-27", "2024-02-28"]
    assert time_words(PICTURES["gates"](labelled(time=ODD["times"])))[0] == "2024-02-27 01:01"
    values = testing.decaying(steps=5)["rnn"]["hidden_gradient"].assign_coords(time=DATES)
    assert "2024-02-28" in [word for _, word in plots.heatmap(values).panels[0].x.ticks]


def test_long_labels_are_cut_at_the_axis_and_whole_under_the_mouse():
    tree = labelled(time=ODD["long"])
    assert all(len(word) <= 18 for word in time_words(PICTURES["gates"](tree)))
    (image,) = plots.heatmap(tree, sliders=["sample"]).marks(Image)
    assert image.columns.tolist() == ODD["long"]


def test_labels_are_no_index_and_measures_do_not_change():
    plain = testing.decaying([0.5, 0.6, 0.7], steps=5)
    named = plain.copy(deep=True)
    label_axes(named, {"time": ["a"] * 5, "sample": ["s"] * 3, "feature": list("wxyz")})
    assert "time_label" not in named["rnn"].to_dataset().indexes
    for measure in (tt.diagnostics.lag_profile, tt.diagnostics.effective_steps):
        first, second = (
            measure(tree)[name].values
            for tree in (plain, named)
            for name in ("ratio", "k90")
            if name in measure(tree)
        )
        np.testing.assert_array_equal(first, second)
    assert plots.lag_profile(named).title == plots.lag_profile(plain).title


def test_tokens_of_each_sample_stand_where_one_sample_is_drawn():
    tokens = [[f"{sample}{step}" for step in range(5)] for sample in range(3)]
    tree = labelled(time=tokens)
    one = tree["rnn"]["hidden"].isel(sample=[1])
    assert [word for _, word in plots.lines(one.isel(unit=0)).panels[0].x.ticks] == tokens[1]
    assert plots.gates(tree).panels[0].x.ticks is None


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ({"time": ["a", "b"]}, "2 labels were passed, and the layers have 5"),
        ({"sample": "abc"}, "a label for each place"),
        ({"feature": [["a"], ["b"]]}, "a label for each place"),
        ({"sample": 3}, "a label for each place"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, says):
    with pytest.raises(tt.SchemaError, match=says):
        labelled(**labels)


class TestFirstSample:
    """The sample that shows first lies in the middle."""

    def test_with_losses_it_has_the_median_loss_and_the_slider_says_each(self):
        tree = labelled(sample=["x", "y", "z"])
        label_axes(tree, {"sample": [3.0, 0.25, 1.5]}, "sample_loss")
        picture = plots.heatmap(tree, sliders=["sample"])
        assert picture.sliders[0].words == ("x, loss 3", "y, loss 0.25", "z, loss 1.5")
        assert picture.frame_words(picture.shown) == "sample z, loss 1.5"

    def test_without_losses_it_has_the_median_size(self):
        leaf = testing.decaying([0.5] * 3)["rnn"].to_dataset()
        leaf["hidden_gradient"] = leaf["hidden_gradient"] * xr.DataArray([9.0, 1.0, 3.0], dims="sample")
        assert plots.heatmap(leaf, sliders=["sample"]).shown == 2

    def test_losses_that_are_no_numbers_come_last(self):
        tree = labelled()
        label_axes(tree, {"sample": [np.nan, 0.25, 1.5]}, "sample_loss")
        assert plots.heatmap(tree, sliders=["sample"]).shown == 2


def test_a_subscript_stands_at_the_end_of_a_name():
    values = xr.DataArray(np.ones((2, 5, 3)), dims=("sample", "time", "unit"))
    assert "input_times_slow ·" in heading(plots.heatmap(values.rename("input_times_slow")))
    assert "xₜ ·" in heading(plots.heatmap(values.rename("x_t")))
    assert "|dL/dhₜ| ·" in heading(plots.heatmap(testing.decaying()))
