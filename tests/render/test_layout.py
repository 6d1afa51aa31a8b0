"""Pictures in a narrow column: they can be read, or are refused with a width at which they can."""

from __future__ import annotations

import itertools
import warnings

import pytest
import xarray as xr
from tests.plots.trees import with_steps

import throughtime as tt
from throughtime import plots, testing
from throughtime.picture._render.matplotlib_layout import stacked

PICTURES = {
    "gates": lambda: plots.gates(testing.constant_gates(samples=3, steps=30)),
    "heatmap": lambda: plots.heatmap(testing.constant_gates(samples=3, steps=30)),
    "two heatmaps": lambda: plots.heatmap(testing.bidirectional(samples=3, steps=30)),
    "lag_profile": lambda: plots.lag_profile(testing.decaying([0.5, 0.6, 0.7], steps=30)),
    "two lag_profiles": lambda: plots.lag_profile(testing.bidirectional(samples=3, steps=30)),
    "overview": lambda: plots.overview(testing.saturated_gates(samples=3, steps=30)),
    "training": lambda: plots.training(with_steps()),
    "spectrum": lambda: plots.spectrum(testing.bidirectional(samples=2, steps=12)),
    "compare": lambda: plots.compare(*[testing.bidirectional(samples=2, steps=12)] * 2, kind="heatmap"),
    "curves": lambda: plots.compare(*[testing.bidirectional(samples=2, steps=12)] * 2),
    "weights": lambda: plots.weights(testing.constant_gates(samples=1, steps=5)),
    "contributions": lambda: plots.contributions(testing.bidirectional(samples=3, steps=30)),
    "evolution": lambda: plots.evolution(with_steps()),
    "lag_matrix": lambda: plots.lag_matrix(testing.lag_matrix_of(samples=2, steps=12)),
    "gradient_flow": lambda: plots.gradient_flow(testing.bidirectional(samples=3, steps=30)),
    "histogram": lambda: plots.histogram(testing.bidirectional(samples=3, steps=30)),
    "lines": lambda: plots.lines(testing.decaying(samples=2, steps=30, units=12)),
    "scatter": lambda: plots.scatter(last_step(testing.decaying(samples=3))),
}


def last_step(tree: xr.DataTree) -> xr.DataArray:
    return tree["rnn"]["hidden_gradient"].isel(time=-1)


def check_that_it_can_be_read(figure, panels: int) -> None:
    figure.draw_without_rendering()
    for ax in figure.axes[:panels]:
        assert ax.get_window_extent().width / figure.dpi > 0.7
    for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
        labels = [each for each in axis.get_ticklabels() if each.get_text() and each.get_visible()]
        for one, other in itertools.pairwise(label.get_window_extent() for label in labels):
            assert not one.overlaps(other)


@pytest.mark.parametrize("width", [3.35, 6.9])
@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_can_be_read_in_one_column_of_a_paper_and_in_two(name, width):
    figure = PICTURES[name]().to_matplotlib(tt.Theme.for_paper(width))
    assert figure.get_figwidth() == pytest.approx(width)
    assert figure.get_figheight() < 11
    check_that_it_can_be_read(figure, 1)


def test_panels_with_several_colour_bars_are_stacked_column_by_column():
    picture = plots.gates(testing.constant_gates(samples=2, steps=10))
    titles = [panel.title for panel in stacked(picture).panels]
    assert titles[:4] == ["input", "forget", "candidate", "output"]
    assert titles[4:6] == ["input · saturated", "forget · saturated"]
    assert stacked(picture).columns == 1


def test_a_width_at_which_nothing_can_be_read_is_refused():
    with pytest.raises(tt.PictureError, match=r"Pass width=[\d.]+\.$"):
        PICTURES["gates"]().to_matplotlib(tt.Theme.for_paper(0.8))


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("theme", [tt.Theme(), tt.Theme.for_slides()])
def test_the_usual_themes_have_room_for_every_picture(name, theme):
    PICTURES[name]().to_matplotlib(theme)


def test_a_long_title_is_broken_into_lines_within_the_figure():
    words = " ".join(["encoder/bidirectional_3/forward $x"] * 12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plots.heatmap(testing.decaying(), title=words).to_matplotlib()
        figure.draw_without_rendering()
    title = figure._suptitle
    assert title.get_text().replace("\n", " ") == words
    assert title.get_window_extent().x1 <= figure.bbox.width
