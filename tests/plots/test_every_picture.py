"""Every picture draws every kind of capture, with both renderers, without a warning or an error."""

from __future__ import annotations

import logging

import pytest
import xarray as xr
from bokeh.embed import components
from tests.plots.trees import TREES

from throughtime import PictureError, SchemaError, plots
from throughtime.picture import Picture
from throughtime.picture._drawing.theme import Theme
from throughtime.picture._render import matplotlib


def last_step(tree: xr.DataTree) -> xr.DataArray:
    return tree["rnn"]["hidden_gradient"].isel(time=-1)


PICTURES = {
    "compare": lambda tree: plots.compare(tree, tree, names=("a", "b")),
    "contributions": plots.contributions,
    "evolution": plots.evolution,
    "gates": plots.gates,
    "gradient_flow": plots.gradient_flow,
    "heatmap": plots.heatmap,
    "histogram": plots.histogram,
    "lag_matrix": plots.lag_matrix,
    "lag_profile": plots.lag_profile,
    "lines": plots.lines,
    "overview": plots.overview,
    "scatter": lambda tree: plots.scatter(last_step(tree)),
    "spectrum": plots.spectrum,
    "training": plots.training,
    "weights": plots.weights,
}
# Other ways to call them, on the captures where they differ.
VARIANTS = {
    "heatmap, slider": lambda tree: plots.heatmap(tree, sliders=["sample"]),
    "heatmap, signed log": lambda tree: plots.heatmap(tree, scale="signed_log", share=False),
    "heatmap, linear": lambda tree: plots.heatmap(tree, "hidden", limits=(-0.1, 0.1), cmap="bwr"),
    "heatmap of samples": lambda tree: plots.heatmap(tree, "step_contribution"),
    "lines, one a sample": lambda tree: plots.lines(tree, scale="linear", spread="lines", share=False),
    "lines of contributions": lambda tree: plots.lines(tree, "step_contribution", spread="band"),
    "histogram by unit": lambda tree: plots.histogram(tree, by="unit"),
    "histogram by layer": lambda tree: plots.histogram(tree, by="layer", scale="signed_log"),
    "compared heatmaps": lambda tree: plots.compare(tree, tree, kind="heatmap"),
    "compared states": lambda tree: plots.compare(tree, tree, "hidden"),
    "gradients of weights": lambda tree: plots.weights(tree, gradient=True, share=True),
}
VARIED = ("one direction", "masked", "NaN", "one step")
# What a picture needs that not every capture has.
NEEDS = {
    "gates": (SchemaError, lambda leaf: "gate_activation" in leaf),
    "lag_matrix": (SchemaError, lambda leaf: "lag_matrix" in leaf),
    "evolution": (PictureError, lambda leaf: "step" in leaf.dims),
    "training": (PictureError, lambda leaf: "step" in leaf.dims),
}


@pytest.fixture(params=TREES, scope="module")
def tree(request):
    return TREES[request.param]()


def made(picture, tree) -> Picture:
    made = picture(tree)
    assert isinstance(made, Picture)
    assert made.title
    assert made.note
    return made


def draw(picture: Picture, caplog) -> None:
    assert matplotlib.encoded(picture, Theme(dpi=50)).startswith(b"\x89PNG")
    with caplog.at_level(logging.WARNING):
        script, (div,) = components([picture.to_bokeh()])
    assert not caplog.records, "Bokeh checks a document before it is written"
    assert len(script) > 500
    assert "<div" in div


@pytest.mark.parametrize("name", PICTURES)
def test_every_capture_draws_with_both_renderers(tree, name, caplog):
    error, has = NEEDS.get(name, (None, None))
    if has and not has(tree["rnn"].to_dataset()):
        with pytest.raises(error, match=r"tt\.|xarray\.concat"):
            PICTURES[name](tree)
        return
    draw(made(PICTURES[name], tree), caplog)


@pytest.mark.parametrize("kind", VARIED)
@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_draws_with_both_renderers(kind, name, caplog):
    draw(made(VARIANTS[name], TREES[kind]()), caplog)


def test_every_picture_is_drawn_here():
    public = {name for name in plots.__all__ if callable(getattr(plots, name)) and name.islower()}
    assert set(PICTURES) == public
