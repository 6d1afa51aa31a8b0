"""The live page in a real browser, while a model trains: it follows, and shows the run's own numbers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.monitor.test_monitor import BATCH, MSE, made, train
from tests.render.browser import Page, chromium, visited

import throughtime as tt
from throughtime._pages.live import Server, words
from throughtime._store import Run

pytestmark = pytest.mark.filterwarnings("ignore::throughtime.ThroughTimeWarning")
QUIET = 1_500  # milliseconds, in which what is on its way has arrived on a busy machine
SECONDS = 60_000  # milliseconds, in which a page that follows has long caught up
_DATA = """name => {
    const source = Bokeh.documents[0].get_model_by_name(name)
    const plain = each => each?.[Symbol.iterator] && typeof each != "string" ? [...each].map(plain) : each
    return Object.fromEntries(Object.entries(source.data).map(([key, column]) => [key, plain(column)]))
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[tt.Monitor]:
    made = tt.Monitor(tmp_path / "run.zarr", batch=BATCH, every=2, loss=MSE)
    yield made
    made.close()


def data(page: Page, name: str) -> dict[str, list[Any]]:
    return page.tab.evaluate(_DATA, name)


def wait_for(page: Page, step: int) -> None:
    """Wait until the page shows a training step as the last: its table is what a look changes last."""
    script = """step => Bokeh.documents[0].get_model_by_name("loss").data.x.at(-1) == step
        && Bokeh.documents[0].get_model_by_name("numbers").text.includes(`training step</dt><dd>${step}</dd>`)
        && Bokeh.documents[0].is_idle"""
    page.tab.wait_for_function(script, arg=step, timeout=SECONDS)


def text(page: Page, name: str) -> str:
    return page.tab.evaluate("name => Bokeh.documents[0].get_model_by_name(name).text", name)


def check_against_run(page: Page, run: Any, layer: str = "rnn", **chosen: str) -> None:
    """Hold every number drawn against the run."""
    leaf = run[layer].to_dataset().compute()
    leaf = leaf.sel(chosen) if chosen else leaf
    loss, norm, lag = (data(page, name) for name in ("loss", "norm", "lag"))
    assert loss["x"] == leaf["step"].values.tolist()
    np.testing.assert_array_equal(loss["y"], leaf["loss"])
    medians = leaf["hidden_gradient_norm"].sel(quantile=0.5).transpose("step", "time").values
    np.testing.assert_array_equal(norm["y"], medians[-1])
    np.testing.assert_array_equal(lag["y"], leaf["lag_ratio"].isel(step=-1))
    earlier = data(page, "norm_earlier")
    np.testing.assert_array_equal(earlier["ys"], medians)  # fewer records than lines
    assert earlier["step"] == loss["x"]
    image = np.array(data(page, "evolution")["image"][0], dtype=float).reshape(256, -1)
    np.testing.assert_allclose(image[: len(medians)], np.log10(medians), rtol=1e-6)
    assert np.isnan(image[len(medians) :]).all()


def test_it_waits_and_follows_and_asks_nothing_of_others(
    browser: Any, monitor: tt.Monitor, tmp_path: Path
) -> None:
    page = visited(browser, monitor.url)
    assert "Waiting for" in text(page, "state")
    model = made(bidirectional=True)
    with monitor.watch(model):
        for step in (4, 8, 12):
            train(model, 4, monitor)
            wait_for(page, step)
            run = tt.open_run(tmp_path / "run.zarr")
            check_against_run(page, run, direction="forward")
            leaf = run["rnn"].sel(direction="forward").compute()
            told = re.sub("<[^>]+>", " ", text(page, "numbers"))
            half = float(leaf["lag_ratio"].isel(step=-1, lag=6))
            assert re.search(rf"training step +{step} ", told)
            assert re.search(rf"recorded steps +{1 + step // 2} ", told)
            assert re.search(rf"reach at lag 6 +{re.escape(f'{half:.3g}')} ", told)
            assert f"{float(leaf['loss'].isel(step=-1)):.3g}" in told
    image = next(place for place, box in enumerate(page.frames()) if box["bottom"] > box["top_value"])
    words = page.hover(image, 5, 3)  # the fourth of seven rows, from the top
    value = float(leaf["hidden_gradient_norm"].sel(quantile=0.5).isel(step=3, time=5))
    timestep, step, told = re.search(r"timestep: ?(\d+) training step: ?(\d+) value: ?(\S+)", words).groups()
    assert (int(timestep), int(step), float(told)) == (5, 6, pytest.approx(value, rel=6e-3))
    assert page.complaints == []
    own = (monitor.url, monitor.url.replace("http", "ws"), "data:", "blob:")
    assert [url for url in page.requests if not url.startswith(own)] == []
    page.tab.close()


def test_new_records_make_no_new_models(browser: Any, monitor: tt.Monitor) -> None:
    model = made()
    with monitor.watch(model):
        page = visited(browser, monitor.url)
        train(model, 2, monitor)
        wait_for(page, 2)
        page.tab.evaluate("() => { window.models = Bokeh.documents[0].all_models.size }")
        train(model, 2, monitor)
        wait_for(page, 4)
    assert page.tab.evaluate("() => models == Bokeh.documents[0].all_models.size")
    page.tab.close()


def test_layers_and_directions_are_chosen(browser: Any, tmp_path: Path) -> None:
    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lower = torch.nn.LSTM(3, 4, batch_first=True, bidirectional=True)
            self.upper = torch.nn.GRU(8, 5, batch_first=True)
            self.rnn, self.head = self.lower, torch.nn.Linear(5, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.upper(self.lower(x)[0])[0][:, -1])

    monitor, model = tt.Monitor(tmp_path / "run.zarr", batch=BATCH, every=1, loss=MSE), Two()
    with monitor.watch(model):
        page = visited(browser, monitor.url)
        train(model, 2, monitor)
        wait_for(page, 2)
        run = tt.open_run(tmp_path / "run.zarr")
        check_against_run(page, run, "lower", direction="forward")
        page.tab.get_by_label("direction").select_option("backward")
        same(page, lambda: check_against_run(page, run, "lower", direction="backward"))
        page.tab.get_by_label("quantity").select_option("cell_gradient")
        cell = run["lower"]["cell_gradient_norm"].sel(direction="backward", quantile=0.5).isel(step=-1)
        same(page, lambda: np.testing.assert_array_equal(data(page, "norm")["y"], cell))
        page.tab.get_by_label("layer").select_option("upper")
        same(page, lambda: check_against_run(page, run, "upper"))
        train(model, 1, monitor)
        wait_for(page, 3)
        check_against_run(page, tt.open_run(tmp_path / "run.zarr"), "upper")
    assert page.complaints == []
    monitor.close()
    page.tab.close()


def told(words: str, text: str) -> None:
    assert words in text


def same(page: Page, check: Any) -> None:
    """Hold the page against what it will show once its server has answered."""
    for _ in range(160):
        try:
            return check()
        except AssertionError:
            page.tab.wait_for_timeout(250)
    return check()


def test_a_run_that_is_thinned_is_shown_as_it_is_now(browser: Any, tmp_path: Path) -> None:
    size = tt.Monitor(tmp_path / "one.zarr", batch=BATCH, loss=MSE)
    with size.watch(made()):
        pass
    budget = 6 * tt.open_run(tmp_path / "one.zarr").nbytes
    model, monitor = made(), tt.Monitor(tmp_path / "run.zarr", BATCH, every=1, loss=MSE, budget=budget)
    with monitor.watch(model):
        page = visited(browser, monitor.url)
        train(model, 4, monitor)
        wait_for(page, 4)
        train(model, 8, monitor)
    steps = tt.open_run(tmp_path / "run.zarr")["rnn"]["step"].values.tolist()
    assert 1 not in steps
    wait_for(page, 12)
    check_against_run(page, tt.open_run(tmp_path / "run.zarr"))
    assert page.complaints == []
    monitor.close()
    page.tab.close()


def test_a_nan_is_yellow_and_its_alarm_is_listed(browser: Any, monitor: tt.Monitor) -> None:
    model = made()
    with monitor.watch(model):
        page = visited(browser, monitor.url)
        train(model, 4, monitor, spoiled_at=3)
        wait_for(page, 4)
    same(page, lambda: told("<b>nonfinite</b> in rnn: ", text(page, "alarms")))
    image = np.array(data(page, "evolution")["image"][0], dtype=float).reshape(256, -1)
    assert (image[2] == 1e9).all()  # above the scale, whose colour there is that of no number
    assert np.isfinite(image[:2]).all()
    assert (image[:2] < 1e8).all()
    assert "<dd>NaN</dd>" in text(page, "numbers")
    page.tab.close()


def test_a_zoom_stays_and_a_reset_follows_again(browser: Any, monitor: tt.Monitor) -> None:
    model = made()
    with monitor.watch(model):
        page = visited(browser, monitor.url)
        train(model, 4, monitor)
        wait_for(page, 4)
        page.tab.wait_for_timeout(QUIET)
        page.tab.evaluate("""() => {
            window.figure = Bokeh.documents[0].get_model_by_name("loss_figure")
            figure.x_range.setv({start: 1, end: 2})
        }""")
        page.tab.wait_for_timeout(QUIET)
        train(model, 4, monitor)
        wait_for(page, 8)
        assert page.tab.evaluate("() => [figure.x_range.start, figure.x_range.end]") == [1, 2]
        page.tab.evaluate("() => Bokeh.index.find_one(figure).reset()")
        page.tab.wait_for_timeout(QUIET)
        train(model, 2, monitor)
        wait_for(page, 10)
    page.until("() => figure.x_range.start == 0 && figure.x_range.end == 10.15")
    page.tab.close()


def test_what_cannot_be_shown_is_told(browser: Any, tmp_path: Path) -> None:
    with Run(tmp_path / "run.zarr"):
        pass
    commit = tmp_path / "run.zarr" / "zarr.json"
    commit.write_text(
        commit.read_text("utf-8").replace('"throughtime_run": 1', '"throughtime_run": 99'), "utf-8"
    )
    server = Server(tmp_path / "run.zarr")
    page = visited(browser, server.url)
    assert "cannot be shown" in text(page, "state")
    assert "newer throughtime" in text(page, "state")
    server.close()
    page.tab.close()


@pytest.mark.slow
def test_a_page_that_is_closed_says_nothing(
    browser: Any, monitor: tt.Monitor, caplog: pytest.LogCaptureFixture
) -> None:
    model = made()
    with monitor.watch(model):
        page = visited(browser, monitor.url)
        page.tab.close()
        train(model, 6, monitor)
        page = visited(browser, monitor.url)  # the server goes on
        wait_for(page, 6)
    page.tab.close()
    assert [record.getMessage() for record in caplog.records if record.levelname != "INFO"] == []


def test_it_says_whether_training_runs_or_has_ended(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor, model = tt.Monitor(tmp_path / "run.zarr", BATCH, every=1, loss=MSE), made()
    with monitor.watch(model):
        page = visited(browser, monitor.url)
        train(model, 2, monitor)
        same(page, lambda: told(">running<", text(page, "state")))
        monkeypatch.setattr(words, "PATIENCE", 0.5)
        same(page, lambda: told(">no record for ", text(page, "state")))
    same(page, lambda: told(">ended<", text(page, "state")))
    monitor.close()
    page.tab.close()


def test_a_killed_training_has_no_record_and_is_not_ended(browser: Any, tmp_path: Path) -> None:
    code = "import os, sys; from throughtime._store import Run; from throughtime import testing\n"
    code += "run = Run(sys.argv[1]); run.append(testing.decaying(samples=4), 0); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "run.zarr")], check=False)
    old = time.time() - 100
    os.utime(tmp_path / "run.zarr" / "zarr.json", (old, old))
    server = Server(tmp_path / "run.zarr")
    page = visited(browser, server.url)
    same(page, lambda: told(">no record for 1", text(page, "state")))
    server.close()
    page.tab.close()


def test_the_lag_of_a_tile_is_chosen_and_a_phone_shows_the_page_in_its_width(
    browser: Any, monitor: tt.Monitor, tmp_path: Path
) -> None:
    model = made()
    with monitor.watch(model):
        train(model, 4, monitor)
        page = visited(browser, monitor.url, width=390)
        wait_for(page, 4)
        ratios = tt.open_run(tmp_path / "run.zarr")["rnn"]["lag_ratio"].isel(step=-1).values
        page.tab.get_by_label("lag", exact=True).select_option("2")
        same(page, lambda: told(f"reach at lag 2</dt><dd>{ratios[2]:.3g}<", text(page, "numbers")))
        page.tab.wait_for_timeout(QUIET)
        page.until("() => document.documentElement.scrollWidth == 390")
    first = re.search("<dt>(.*?)</dt>", text(page, "numbers"))[1]
    assert first.startswith("horizon")
    alphas = data(page, "norm_earlier")["alpha"]
    assert alphas == sorted(alphas)
    page.tab.close()


def test_saturation_and_clipping_are_drawn(browser: Any, tmp_path: Path) -> None:
    monitor, model = tt.Monitor(tmp_path / "run.zarr", BATCH, every=1, loss=MSE), made()
    with monitor.watch(model):
        page = visited(browser, monitor.url)
        for _ in range(3):
            monitor.step(gradient_norm=2.0, clip_norm=1.0)
        wait_for(page, 3)
        leaf = tt.open_run(tmp_path / "run.zarr")["rnn"].to_dataset().compute()
        drawn = data(page, "saturation")
        for gate, line in zip(drawn["name"], drawn["ys"], strict=True):
            ends = leaf["saturation_left"] + leaf["saturation_right"]
            np.testing.assert_allclose(line, ends.sel(gate=gate))
        assert data(page, "loop")["name"][0] == "gradient norm"
    monitor.close()
    page.tab.close()


def test_it_is_light_and_dark(browser: Any, monitor: tt.Monitor) -> None:
    with monitor.watch(made()):
        page = visited(browser, monitor.url)
    axis = "() => Bokeh.documents[0].get_model_by_name('loss_figure').below[0].axis_line_color"
    light = page.tab.evaluate(axis)
    page.tab.get_by_role("button", name="Dark").click()
    assert page.tab.evaluate(axis) != light
    assert page.complaints == []
    page.tab.close()


@pytest.mark.parametrize("width", [pytest.param(1280, marks=pytest.mark.slow), 390])
def test_two_layers_are_shown_side_by_side(browser: Any, tmp_path: Path, width: int) -> None:
    model = torch.nn.Sequential()
    model.lower = torch.nn.GRU(3, 4, batch_first=True, bidirectional=True)
    model.upper, model.head = torch.nn.LSTM(8, 5, batch_first=True), torch.nn.Linear(5, 1)
    model.forward = lambda x: model.head(model.upper(model.lower(x)[0])[0][:, -1])
    monitor = tt.Monitor(tmp_path / "run.zarr", batch=BATCH, every=1, loss=MSE)
    with monitor.watch(model):
        train(model, 2, monitor)
        page = visited(browser, monitor.url, width=width)
        wait_for(page, 2)
        sections = page.tab.locator("section.beside")
        assert [sections.nth(place).is_visible() for place in range(4)] == [False] * 4
        page.tab.get_by_label("beside").select_option("lower backward")
        leaf = tt.open_run(tmp_path / "run.zarr")["lower"].sel(direction="backward").compute()
        same(
            page, lambda: np.testing.assert_array_equal(data(page, "lag_beside")["y"], leaf["lag_ratio"][-1])
        )
        for place in range(4):
            sections.nth(place).wait_for(state="visible", timeout=SECONDS)
        check_against_run(page, tt.open_run(tmp_path / "run.zarr"), "lower", direction="forward")
        page.tab.get_by_label("layer").select_option("upper")
        same(page, lambda: check_against_run(page, tt.open_run(tmp_path / "run.zarr"), "upper"))
        train(model, 1, monitor)
        wait_for(page, 3)
        leaf = tt.open_run(tmp_path / "run.zarr")["lower"].sel(direction="backward").compute()
        same(
            page, lambda: np.testing.assert_array_equal(data(page, "lag_beside")["y"], leaf["lag_ratio"][-1])
        )
        medians = leaf["hidden_gradient_norm"].sel(quantile=0.5).transpose("step", "time")
        same(page, lambda: np.testing.assert_array_equal(data(page, "norm_beside_earlier")["ys"], medians))
        same(page, lambda: told("horizon of lower backward", text(page, "numbers_beside")))
        left, right = (
            page.tab.get_by_role("region", name=name, exact=True).bounding_box()
            for name in ("Reach by lag", "Reach by lag, second")
        )
        assert (left["y"] == right["y"]) == (width > 960)
        page.tab.wait_for_timeout(QUIET)
        page.until("width => document.documentElement.scrollWidth == width", width)
        page.tab.get_by_label("beside").select_option("nothing")
        sections.first.wait_for(state="hidden", timeout=SECONDS)
        page.tab.wait_for_timeout(QUIET)
    assert page.complaints == []
    page.tab.close()
    monitor.close()
