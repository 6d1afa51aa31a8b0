"""Pictures of a stored run, which is read lazily: the last training step, and all of them."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import throughtime as tt
from throughtime import plots, testing
from throughtime._monitor.levels import reduced_tree
from throughtime._store import Run
from throughtime.picture import Image

LAST = ("lines", "lag_profile", "contributions", "spectrum", "weights", "gradient_flow")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "run.zarr"
    with Run(path) as made:
        for step, rate in ((0, 0.3), (10, 0.5), (50, 0.9)):
            made.append(testing.decaying(rate, samples=3, steps=12), step)
    return tt.open_run(path)


def test_it_is_lazy(run):
    assert run["rnn"]["hidden_gradient"].chunks is not None


@pytest.mark.parametrize("name", LAST)
def test_picture_is_of_the_last_step_and_says_so(run, name):
    assert "step 50" in getattr(plots, name)(run).title


def test_every_step_is_in_evolution_and_slider(run):
    (image,) = plots.evolution(run).marks(Image)
    assert image.values.shape == (3, 12)
    heatmap = plots.heatmap(run)
    assert heatmap.sliders[0].words == ("0", "10", "50")
    assert heatmap.frame_words(heatmap.shown) == "step 50"


@pytest.mark.parametrize("level", ["summary", "timestep", "full"])
@pytest.mark.parametrize("quantity", ["hidden_gradient", "step_contribution"])
def test_evolution_is_the_same_of_every_level_and_read_in_parts(tmp_path, monkeypatch, level, quantity):
    leaves = [testing.decaying(rate, samples=3, steps=12) for rate in (0.3, 0.5, 0.9)]
    with Run(tmp_path / "run.zarr") as made:
        for step, tree in enumerate(leaves):
            made.append(reduced_tree(tree, level), step)
    monkeypatch.setattr(sys.modules[plots.evolution.__module__], "_BYTES_AT_ONCE", 1)
    picture = plots.evolution(tt.open_run(tmp_path / "run.zarr"), quantity)
    (image,) = picture.marks(Image)
    for row, tree in zip(image.values, leaves, strict=True):
        values = tree["rnn"][quantity].values
        norms = np.linalg.norm(values, axis=-1) if values.ndim == 3 else values
        np.testing.assert_allclose(row, np.median(norms, axis=0), rtol=1e-12)
    symbol = {"hidden_gradient": "‖dL/dhₜ‖", "step_contribution": "‖dUₜ‖"}[quantity]
    assert picture.title.startswith(symbol)
    assert "median over" in picture.title


def test_evolution_of_the_signal_by_lag(tmp_path):
    rates = (0.3, 0.9)
    with Run(tmp_path / "run.zarr") as made:
        for step, rate in enumerate(rates):
            made.append(reduced_tree(testing.decaying(rate, steps=12), "summary"), step)
    picture = plots.evolution(tt.open_run(tmp_path / "run.zarr"), "lag_ratio")
    assert "a column a number of steps back" in picture.note
    (image,) = picture.marks(Image)
    np.testing.assert_allclose(image.values, np.array(rates)[:, None] ** np.arange(12), rtol=1e-9)
    assert picture.panels[0].x.label == "lag, steps back"
