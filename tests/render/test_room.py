"""Pictures in a narrow column: they can be read, or are refused with a width at which they can."""

from __future__ import annotations

import itertools
import re
import warnings

import pytest

import throughtime as tt
from throughtime import plots, testing

COLUMN = tt.Theme.for_paper(3.35)
PICTURES = {
    "gates": lambda: plots.gates(testing.constant_gates(samples=3, steps=30)),
    "heatmap": lambda: plots.heatmap(testing.constant_gates(samples=3, steps=30)),
    "two heatmaps": lambda: plots.heatmap(testing.bidirectional(samples=3, steps=30)),
    "lag_profile": lambda: plots.lag_profile(testing.decaying([0.5, 0.6, 0.7], steps=30)),
    "two lag_profiles": lambda: plots.lag_profile(testing.bidirectional(samples=3, steps=30)),
}


def check_that_it_can_be_read(figure, panels: int) -> None:
    figure.draw_without_rendering()
    for ax in figure.axes[:panels]:
        assert ax.get_window_extent().width / figure.dpi > 0.7
    for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
        labels = [each for each in axis.get_ticklabels() if each.get_text() and each.get_visible()]
        for one, other in itertools.pairwise(label.get_window_extent() for label in labels):
            assert not one.overlaps(other)


@pytest.mark.parametrize("name", PICTURES)
def test_a_column_of_a_paper_is_wide_enough_or_the_width_that_is_gets_named(name):
    picture = PICTURES[name]()
    try:
        figure = picture.to_matplotlib(COLUMN)
    except tt.PictureError as error:
        assert picture.columns > 1
        width = float(re.search(r"Give it width=([\d.]+)\.$", str(error))[1])
        figure = picture.to_matplotlib(tt.Theme.for_paper(width))
    check_that_it_can_be_read(figure, len(picture.panels))


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("theme", [tt.Theme(), tt.Theme.for_paper(), tt.Theme.for_slides()])
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
