"""Pictures of a stored run, which is read lazily: the last training step, and all of them."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from tests.plots.trees import heading

import throughtime as tt
from throughtime import plots, testing
from throughtime._monitor.levels import reduce_tree
from throughtime._store import Run
from throughtime.picture import Image, Line

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
    assert "step 50" in heading(getattr(plots, name)(run))


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
            made.append(reduce_tree(tree, level), step)
    monkeypatch.setattr(sys.modules[plots.evolution.__module__], "_BYTES_AT_ONCE", 1)
    picture = plots.evolution(tt.open_run(tmp_path / "run.zarr"), quantity)
    (image,) = picture.marks(Image)
    for row, tree in zip(image.values, leaves, strict=True):
        values = tree["rnn"][quantity].values
        norms = np.linalg.norm(values, axis=-1) if values.ndim == 3 else values
        np.testing.assert_allclose(row, np.median(norms, axis=0), rtol=1e-12)
    symbol = {"hidden_gradient": "‖dL/dhₜ‖", "step_contribution": "‖dUₜ‖"}[quantity]
    assert symbol in heading(picture)
    assert "median over" in heading(picture)


def test_evolution_of_the_signal_by_lag(tmp_path):
    rates = (0.3, 0.9)
    with Run(tmp_path / "run.zarr") as made:
        for step, rate in enumerate(rates):
            made.append(reduce_tree(testing.decaying(rate, steps=12), "summary"), step)
    picture = plots.evolution(tt.open_run(tmp_path / "run.zarr"), "lag_ratio")
    assert "a column a number of steps back" in picture.note
    (image,) = picture.marks(Image)
    np.testing.assert_allclose(image.values, np.array(rates)[:, None] ** np.arange(12), rtol=1e-9)
    assert picture.panels[0].x.label == "lag, steps back"


class TestLevels:
    """What each level keeps is drawn as a capture of that step is, as far as norms go."""

    @pytest.fixture(params=["summary", "timestep"])
    def level(self, request):
        return request.param

    @pytest.fixture
    def last(self):
        return testing.decaying([0.7, 0.8, 0.8, 0.9], steps=12)

    @pytest.fixture
    def kept(self, tmp_path, level, last):
        with Run(tmp_path / "run.zarr") as made:
            made.append(reduce_tree(testing.decaying([0.5] * 4, steps=12), level), 0)
            made.append(reduce_tree(last, level), 10)
        return tt.open_run(tmp_path / "run.zarr")

    def test_gradient_flow(self, kept, last, level):
        picture, wanted = plots.gradient_flow(kept), plots.gradient_flow(last)
        assert "step 10" in heading(picture)
        assert "exactly 0" not in heading(picture)
        (median,), (expected,) = (
            dict(each.marks(Line)[0].details)["value"][None] for each in (picture, wanted)
        )
        np.testing.assert_allclose(median, expected, rtol=1e-9)
        assert ("90 %" if level == "summary" else "80 %") in picture.note

    def test_lag_profile(self, kept, level):
        picture = plots.lag_profile(kept)
        median = next(mark for mark in picture.marks(Line) if mark.label.startswith("median"))
        np.testing.assert_allclose(dict(median.details)["R"], 0.8 ** np.arange(12), rtol=1e-6)
        assert ("4 samples" in heading(picture)) is (level == "timestep")

    def test_contributions(self, kept, last):
        picture = plots.contributions(kept)
        assert "step 10" in heading(picture)
        (line,) = [mark for mark in picture.marks(Line) if mark.label.startswith("median")]
        values = last["rnn"]["step_contribution"].values
        drawn = dict(line.details)
        if "norm" in drawn:
            np.testing.assert_allclose(drawn["norm"], np.median(values, axis=0), rtol=1e-6)
        else:
            shares = values / values.sum(axis=1, keepdims=True)
            np.testing.assert_allclose(drawn["share"], np.median(shares, axis=0), rtol=1e-6)

    @pytest.mark.parametrize("gradient", [False, True])
    def test_weights_are_drawn_by_their_norms(self, kept, last, gradient):
        picture = plots.weights(kept, gradient=gradient)
        assert "2 training steps" in heading(picture)
        name = "recurrent_kernel_gradient" if gradient else "recurrent_kernel"
        panel = next(panel for panel in picture.panels if panel.title.startswith("recurrent kernel"))
        drawn = dict(panel.of(Line)[0].details)
        assert drawn["training step"].tolist() == [0, 10]
        np.testing.assert_allclose(drawn["norm"][-1], np.linalg.norm(last["rnn"][name].values))

    def test_heatmap_and_lines_draw_the_norm_of_each_sample(self, kept, last, level):
        if level == "summary":
            for draw in (plots.heatmap, plots.lines):
                with pytest.raises(tt.SchemaError, match="quantities='full'") as caught:
                    draw(kept)
                assert "tt.capture" not in str(caught.value)
            return
        assert plots.heatmap(kept).subtitle.startswith("‖dL/dhₜ‖")
        (image,) = plots.heatmap(kept.isel(step=-1)).marks(Image)
        norms = np.linalg.norm(last["rnn"]["hidden_gradient"].values, axis=-1)
        np.testing.assert_allclose(image.values, norms, rtol=1e-9)
        assert "step 10" in heading(plots.lines(kept))

    @pytest.mark.parametrize("name", ["gates", "spectrum", "scatter"])
    def test_the_rest_names_the_level(self, kept, name):
        with pytest.raises(tt.ThroughTimeError) as caught:
            getattr(plots, name)(kept)
        assert "tt.capture" not in str(caught.value)
        assert name == "scatter" or "quantities='full'" in str(caught.value)

    def test_the_command_lists_and_draws_what_the_level_allows(self, kept, tmp_path, level):
        from typer.testing import CliRunner

        from throughtime._cli.commands import app
        from throughtime._cli.pictures import table_of_plots

        run = str(tmp_path / "run.zarr")
        names = [name for name, _, is_here in table_of_plots(tt.open_run(run)).rows if is_here == "yes"]
        assert (
            names
            == {
                "summary": [
                    *("contributions", "evolution", "gradient_flow", "lag_profile"),
                    *("overview", "training", "weights"),
                ],
                "timestep": [
                    *("contributions", "evolution", "gradient_flow", "heatmap", "histogram"),
                    *("lag_profile", "lines", "overview", "training", "weights"),
                ],
            }[level]
        )
        for name in names:
            done = CliRunner().invoke(app, ["plot", run, name, "-o", str(tmp_path / f"{name}.png")])
            assert (done.exit_code, (tmp_path / f"{name}.png").exists()) == (0, True), done.output
        assert CliRunner().invoke(app, ["plot", run]).exit_code == 2
