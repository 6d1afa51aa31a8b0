"""Colours: magnitudes fall in order of luminance on either paper, and the scale fits what is drawn."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from PIL import Image as Pixels
from tests.plots.trees import TREES

from throughtime import Theme, plots, testing
from throughtime.picture import Image
from throughtime.picture._drawing.colors import TOP
from throughtime.picture._drawing.scale import FLOOR, scale_for
from throughtime.picture._render.dark import on_paper

DARK = Theme(paper="#16181d", ink="#e6e6e6", faint="#3a3d45")
# Zero, one value below the floor, then eight decades down from the largest.
VALUES = np.array([0.0, 1e-12, *np.logspace(-7, 0, 8)])
# Machado, Oliveira & Fernandes 2009, deuteranopia, severity 1, on linear RGB.
DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
)


def linear(hexes: list[str]) -> np.ndarray:
    parts = np.array([[int(each[at : at + 2], 16) / 255 for at in (1, 3, 5)] for each in hexes])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def luminances(theme: Theme, simulated: np.ndarray = np.eye(3)) -> np.ndarray:  # noqa: B008 - only read
    array = xr.DataArray(VALUES[None], dims=("unit", "time"), name="hidden_gradient")
    (image,) = on_paper(plots.heatmap(array), theme).marks(Image)
    codes, listed = image.colors.codes(image.values)[0], image.colors.listed()
    lowest = -125 * 8
    colors = [listed[(int(code) - lowest) // 125] for code in codes]
    return np.clip(linear(colors) @ simulated.T, 0, 1) @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("simulated", [np.eye(3), DEUTERANOPIA], ids=["grey", "deuteranopia"])
def test_larger_is_darker_on_light_paper_from_white_zero_on(simulated):
    found = luminances(Theme(), simulated)
    assert found[0] == pytest.approx(1.0, abs=0.01)
    assert (np.diff(found) < 0).all()


def test_larger_is_lighter_on_dark_paper():
    assert (np.diff(luminances(DARK)) > 0).all()


def test_images_that_share_colours_share_them_on_dark_paper_too():
    picture = on_paper(plots.heatmap(testing.bidirectional(samples=3)), DARK)
    assert len({id(image.colors) for image in picture.marks(Image)}) == 1


def test_colours_asked_for_stay_on_dark_paper():
    picture = plots.heatmap(testing.decaying(), cmap="viridis")
    assert on_paper(picture, DARK).marks(Image)[0].colors.palette == picture.marks(Image)[0].colors.palette


@pytest.mark.parametrize("theme", [Theme(dpi=60), DARK])
def test_the_page_that_is_drawn_has_the_order_too(theme, tmp_path):
    import throughtime as tt

    ramp = xr.DataArray(np.logspace(-5, 0, 40)[None], dims=("unit", "time"), name="hidden_gradient")
    path = tt.save(plots.heatmap(ramp), tmp_path / "ramp.png", theme=theme)
    grey = np.asarray(Pixels.open(path).convert("L")).astype(int)
    row = grey[grey.shape[0] // 2, grey.shape[1] // 6 : 4 * grey.shape[1] // 6]
    steps = np.diff(row)
    assert (steps <= 0).all() if theme.paper == "#ffffff" else (steps >= 0).all()


class TestRange:
    """The range of a logarithmic scale fits the data, in whole decades, down to the floor at most."""

    @pytest.mark.parametrize("spread", [0.5, 2.0, 5.0])
    @pytest.mark.parametrize("kind", ["log10", "signed_log"])
    def test_begins_at_the_decade_below_the_first_percentile(self, spread, kind):
        sizes = 10.0 ** np.random.default_rng(0).uniform(-spread, 0, 5000)
        scale = scale_for(sizes, kind)
        first = np.sort(sizes)[50]
        assert scale.low <= first < 10 * scale.low
        assert np.log10(scale.low) == pytest.approx(round(np.log10(scale.low)), abs=1e-9)
        assert scale.high == sizes.max()
        assert (sizes < scale.low).mean() <= 0.01

    def test_zeros_and_what_is_not_finite_do_not_count(self):
        values = np.array([0.0] * 500 + [np.nan, np.inf] + [0.3, 0.7] * 50)
        assert (scale_for(values, "log10").low, scale_for(values, "log10").high) == (0.1, 0.7)

    def test_goes_no_lower_than_the_floor(self):
        assert scale_for(np.logspace(-30, 0, 100), "log10").low == FLOOR

    @pytest.mark.parametrize("values", [[1.0], [1.0, 1.0], [5e-324], [1e308], [0.0], [np.nan]])
    def test_one_value_alone_has_a_range(self, values):
        scale = scale_for(np.array(values), "log10")
        assert 0 < scale.low < scale.high


@pytest.mark.parametrize("kind", ["two directions", "masked", "exploding", "10,000 steps", "training steps"])
def test_gradients_use_most_of_the_colours(kind):
    images = plots.heatmap(TREES[kind]()).marks(Image)
    codes = np.concatenate([image.colors.codes(image.values, image.valid).ravel() for image in images])
    low, high = np.quantile(codes[codes >= 0], (0.01, 0.99)) / TOP
    assert high - low > 0.6
