"""What the page draws of a run is the same at every level, and records go evenly where they are too many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from bokeh.document import Document
from hypothesis import given
from hypothesis import strategies as st

from throughtime import testing
from throughtime._monitor.levels import reduce_tree
from throughtime._pages.live import panels as panels_module
from throughtime._pages.live.evolution import MOST_ROWS, Evolution
from throughtime._pages.live.follower import Follower
from throughtime._pages.live.page import Page
from throughtime._pages.live.panels import LayerPanels
from throughtime._pages.live.profile import MOST_LINES
from throughtime._pages.live.records import View, losses, read, stride, views
from throughtime._store import Run
from throughtime.picture._drawing.theme import Theme

RATES = (0.5, 0.7, 0.9)


def trees(both_ways: bool) -> list:
    if both_ways:
        return [testing.bidirectional((rate, 0.6), samples=5, steps=20) for rate in RATES]
    return [testing.decaying(np.linspace(rate - 0.1, rate, 5), steps=20) for rate in RATES]


def followed(path: Path, level: str, both_ways: bool = False) -> Follower:
    with Run(path / "run.zarr") as run:
        for step, tree in enumerate(trees(both_ways)):
            run.append(reduce_tree(tree, level), 10 * step)
    follower = Follower(path / "run.zarr")
    assert follower.refresh()
    return follower


@pytest.mark.parametrize("level", ["full", "timestep", "summary"])
@pytest.mark.parametrize("direction", ["", "backward"])
def test_rows_are_those_of_numpy_at_every_level(tmp_path: Path, level: str, direction: str) -> None:
    follower = followed(tmp_path, level, bool(direction))
    offered = views(follower.tree)
    assert list(offered) == ["rnn"]
    assert direction in offered["rnn"][0]
    assert offered["rnn"][1][0] == "hidden_gradient"
    rows = read(follower.tree, View("rnn", direction, "hidden_gradient"), [0, 2])
    assert rows.steps.tolist() == [0, 20]
    for place, number in enumerate((0, 2)):
        leaf = trees(bool(direction))[number]["rnn"].to_dataset()
        gradient = leaf["hidden_gradient"]
        gradient = gradient.sel(direction=direction) if direction else gradient
        norms = np.linalg.norm(gradient.values, axis=-1)
        wanted = np.quantile(norms, (0.05, 0.25, 0.5, 0.75, 0.95), axis=0)
        np.testing.assert_allclose(rows.norms[place], wanted, rtol=1e-12)
        lags = norms if direction == "backward" else norms[:, ::-1]
        np.testing.assert_allclose(rows.ratios[place], np.median(lags / lags[:, :1], axis=0), rtol=1e-9)
        assert rows.loss[place] == float(leaf["loss"])
    assert len(losses(follower.tree, 1)) == 2


def test_a_follower_tells_what_is_new_from_what_took_its_place(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    follower = Follower(path)
    assert not follower.refresh()
    tree = testing.decaying(samples=2, steps=9)
    with Run(path) as run:
        assert follower.refresh()
        assert (follower.steps, follower.generation) == ([], 1)
        for step in range(6):
            run.append(tree, step)
        assert follower.refresh()
        assert not follower.refresh()
        assert (len(follower.steps), follower.generation) == (6, 1)
        run.annotate({"note": "seen"})
        assert follower.refresh()
        assert follower.tree.attrs["note"] == "seen"
        run.thin()
        assert not follower.is_same_folder()
        assert follower.refresh()
        assert (follower.steps, follower.generation) == ([0, 2, 4], 2)
    path.rename(tmp_path / "aside")
    assert not follower.refresh()
    assert follower.steps == [0, 2, 4]


@given(st.integers(1, 10_000), st.integers(1, 300))
def test_records_that_are_drawn_are_as_many_as_fit_and_stay_when_more_come(count: int, most: int) -> None:
    every = stride(count, most)
    assert len(range(0, count, every)) <= most
    assert every == 1 or len(range(0, count, every // 2)) > most
    assert stride(count + 1, most) % every == 0


@pytest.mark.parametrize("before", [0, 1, 300, 700])
def test_an_image_keeps_every_so_many_rows(tmp_path: Path, before: int) -> None:
    rng, total = np.random.default_rng(0), 600
    norms = rng.random((total + before, 7)) + 0.1
    panels = LayerPanels(Theme())
    panels.view = View("rnn", "", "hidden_gradient")

    def run_of(count: int) -> xr.DataTree:
        """Make a run of so many records; the median of five equal quantiles is the norm itself."""
        leaf = xr.Dataset(
            {
                "hidden_gradient_norm": (("step", "quantile", "time"), np.repeat(norms[:count, None], 5, 1)),
                "loss": ("step", np.zeros(count)),
                "lag_ratio": (("step", "lag"), norms[:count] / norms[:count, :1]),
            },
            {"step": np.arange(count), "quantile": [0.05, 0.25, 0.5, 0.75, 0.95]},
        )
        return xr.DataTree.from_dict({"/rnn": leaf})

    shown = 0
    for count in dict.fromkeys([before, *range(before + 1, total + before, 37), total + before]):
        if count:
            panels.add(np.arange(shown, count), count, panels.read(run_of(count), shown, count))
            shown = count
    document = Document()
    for model in panels.models:
        document.add_root(model)
    image = np.asarray(document.get_model_by_name("evolution").data["image"][0]).reshape(MOST_ROWS, -1)
    wanted = np.log10(norms[:: stride(shown, MOST_ROWS)])
    assert MOST_ROWS / 2 < len(wanted) <= MOST_ROWS
    np.testing.assert_allclose(image[: len(wanted)], wanted, rtol=1e-6)
    assert np.isnan(image[len(wanted) :]).all()
    lines = document.get_model_by_name("norm_earlier").data
    assert lines["step"] == list(range(0, shown, stride(shown, MOST_LINES)))
    np.testing.assert_array_equal(lines["ys"], norms[lines["step"]])
    np.testing.assert_array_equal(document.get_model_by_name("norm").data["y"], norms[shown - 1])


def test_masked_zero_and_broken_numbers_stand_apart() -> None:
    image = Evolution(Theme())
    curves = np.array([[0.0, np.nan, 10.0], [0.1, np.nan, np.inf]])
    image.draw(np.arange(2), curves, np.array([1.0, np.nan]))
    shown = np.asarray(image.source.data["image"][0])[:2]
    np.testing.assert_allclose(shown, [[-1e9, np.nan, 1.0], [-1.0, 1e9, 1e9]], rtol=1e-6)
    assert image.mapper.low < -1.0 < 1.0 <= image.mapper.high < 2.0


def test_a_long_sequence_is_pooled_by_its_largest() -> None:
    image, curve = Evolution(Theme()), np.full((1, 10_000), 1e-3)
    curve[0, 7_777] = 5.0
    image.draw(np.arange(1), curve, np.zeros(1))
    shown = np.asarray(image.source.data["image"][0])
    assert shown.shape[1] <= 800
    assert shown[0].max() == pytest.approx(np.log10(5.0))


class TestPage:
    """A page without a browser: a document whose looks are called by hand."""

    def test_sequences_that_grow_longer_begin_anew(self, tmp_path: Path) -> None:
        with Run(tmp_path / "run.zarr") as run:
            run.append(reduce_tree(testing.decaying(0.9, samples=2, steps=9), "summary"), 0)
            document = Document()
            page = Page(document, tmp_path / "run.zarr")
            run.append(reduce_tree(testing.decaying(0.9, samples=2, steps=12), "summary"), 1)
            page.look()
        image = document.get_model_by_name("evolution").data["image"][0]
        assert image.shape == (MOST_ROWS, 12)
        assert np.isnan(image[0, 9:]).all()
        assert np.isfinite(image[0, :9]).all()
        assert np.isfinite(image[1]).all()
        assert document.get_model_by_name("loss").data["x"].tolist() == [0.0, 1.0]

    @pytest.mark.parametrize("names", [["loss"], []])
    def test_a_run_without_anything_over_time_shows_its_loss(self, tmp_path: Path, names: list) -> None:
        leaf = testing.decaying(0.9, samples=2)["rnn"].to_dataset()[[*names, "recurrent_kernel"]]
        with Run(tmp_path / "run.zarr") as run:
            document = Document()
            page = Page(document, tmp_path / "run.zarr")
            for step in range(3):
                run.append(xr.DataTree.from_dict({"/rnn": leaf}), step)
                page.look()
        wanted = float(leaf["loss"]) if names else np.nan
        np.testing.assert_array_equal(document.get_model_by_name("loss").data["y"], [wanted] * 3)
        assert document.get_model_by_name("layer").options == []

    def test_what_moves_while_it_is_read_is_read_again(self, tmp_path: Path, monkeypatch) -> None:
        tree = reduce_tree(testing.decaying(0.9, samples=2, steps=9), "summary")
        with Run(tmp_path / "run.zarr") as run:
            for step in range(4):
                run.append(tree, step)
            document = Document()
            page = Page(document, tmp_path / "run.zarr")
            run.append(tree, 4)
            read_as_it_was = panels_module.read

            def thinned_meanwhile(*arguments):
                if run.steps == [0, 1, 2, 3, 4]:
                    run.thin()
                    raise FileNotFoundError("a chunk that was there")
                return read_as_it_was(*arguments)

            monkeypatch.setattr(panels_module, "read", thinned_meanwhile)
            page.look()
            page.look()
        assert document.get_model_by_name("loss").data["x"].tolist() == [0.0, 2.0, 4.0]
        assert document.get_model_by_name("norm_earlier").data["step"] == [0, 2, 4]

    def test_layers_lie_anywhere_in_the_tree(self, tmp_path: Path) -> None:
        leaves = [testing.decaying(rate, samples=2, steps=9)["rnn"].to_dataset() for rate in (0.9, 0.5)]
        tree = xr.DataTree.from_dict({"/encoder/rnn/0": leaves[0], "/encoder/rnn/1": leaves[1]})
        for level in ("summary", "full"):
            with Run(tmp_path / f"{level}.zarr") as run:
                run.append(reduce_tree(tree, level), 0)
            document = Document()
            Page(document, tmp_path / f"{level}.zarr")
            choice = document.get_model_by_name("layer")
            assert choice.options == ["encoder/rnn/0", "encoder/rnn/1"]
            for layer, rate in zip(choice.options, (0.9, 0.5), strict=True):
                choice.value = layer
                ratios = document.get_model_by_name("lag").data["y"]
                np.testing.assert_allclose(ratios, rate ** np.arange(9), rtol=1e-9)

    def test_an_error_of_ours_is_told_once_and_ends_nothing(
        self, tmp_path: Path, monkeypatch, caplog
    ) -> None:
        tree = reduce_tree(testing.decaying(0.9, samples=2, steps=9), "summary")
        with Run(tmp_path / "run.zarr") as run:
            run.append(tree, 0)
            document = Document()
            page = Page(document, tmp_path / "run.zarr")
            read_as_it_was = panels_module.read
            monkeypatch.setattr(panels_module, "read", lambda *arguments: 1 / 0)
            for step in (1, 2):
                run.append(tree, step)
                page.look()
            assert "ZeroDivisionError" in document.get_model_by_name("state").text
            assert len(caplog.records) == 1
            monkeypatch.setattr(panels_module, "read", read_as_it_was)
            run.append(tree, 3)
            page.look()
        assert document.get_model_by_name("loss").data["x"].tolist() == [0.0, 1.0, 2.0, 3.0]
        assert "cannot be shown" not in document.get_model_by_name("state").text
