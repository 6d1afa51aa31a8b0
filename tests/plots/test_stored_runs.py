"""Pictures of a stored run, which is read lazily: the last training step, and all of them."""

from __future__ import annotations

import pytest

import throughtime as tt
from throughtime import plots, testing
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
