"""Every picture draws every kind of capture, with both renderers, without a warning or an error."""

from __future__ import annotations

import logging

import pytest
import xarray as xr
from bokeh.embed import components
from tests.plots.trees import TREES

from throughtime import SchemaError, plots
from throughtime._theme import Theme
from throughtime.picture import Picture
from throughtime.render import matplotlib

LAST = {"time": -1}


def last_step(tree: xr.DataTree) -> xr.DataArray:
    return tree["rnn"]["hidden_gradient"].isel(time=-1)


PICTURES = {
    "heatmap": plots.heatmap,
    "heatmap, slider": lambda tree: plots.heatmap(tree, sliders=["sample"]),
    "heatmap, signed log": lambda tree: plots.heatmap(tree, scale="signed_log", share=False),
    "heatmap, linear": lambda tree: plots.heatmap(tree, "hidden", limits=(-0.1, 0.1), cmap="bwr"),
    "heatmap of samples": lambda tree: plots.heatmap(tree, "step_contribution"),
    "lines": plots.lines,
    "lines, one a sample": lambda tree: plots.lines(tree, scale="linear", spread="lines", share=False),
    "lines of contributions": lambda tree: plots.lines(tree, "step_contribution", spread="band"),
    "scatter": lambda tree: plots.scatter(last_step(tree)),
    "histogram": plots.histogram,
    "histogram by unit": lambda tree: plots.histogram(tree, by="unit"),
    "histogram by layer": lambda tree: plots.histogram(tree, by="layer", scale="signed_log"),
}
NEEDS = {"gates": "gate_activation", "lag_matrix": "lag_matrix"}


@pytest.fixture(params=TREES, scope="module")
def tree(request):
    return TREES[request.param]()


@pytest.mark.parametrize("name", PICTURES)
def test_draws_with_both_renderers(tree, name, caplog):
    needed = NEEDS.get(name.partition(",")[0])
    if needed and needed not in tree["rnn"]:
        with pytest.raises(SchemaError, match=needed):
            PICTURES[name](tree)
        return
    picture = PICTURES[name](tree)
    assert isinstance(picture, Picture)
    assert picture.title
    png = matplotlib.encoded(picture, Theme(dpi=60))
    assert png.startswith(b"\x89PNG")
    with caplog.at_level(logging.WARNING):
        script, (div,) = components([picture.to_bokeh()])
    assert not caplog.records, "Bokeh checks a document before it is written"
    assert len(script) > 500
    assert "<div" in div
