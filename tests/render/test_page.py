"""An interactive picture in a real browser: offline, quiet, with hover, slider and linked zoom."""

from __future__ import annotations

import re

import nbformat
import pytest
import xarray as xr
from docs._kernels import Kernels
from nbclient import NotebookClient
from playwright.sync_api import expect
from tests.plots.trees import with_steps
from tests.render.browser import FRAMES, PATIENCE, chromium, opened

import throughtime as tt
from throughtime import plots, testing
from throughtime.picture import Image


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def tree():
    return with_steps()


@pytest.fixture(scope="module")
def page(browser, tree, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "heatmap.html"
    return opened(browser, tt.save(plots.heatmap(tree, sliders=["sample"]), path))


def test_page_asks_for_nothing_and_complains_of_nothing(page):
    assert [url for url in page.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert page.complaints == []


def told(words: str) -> tuple[int, int, float]:
    timestep, unit, value = re.search(r"timestep: ?(\d+) unit: ?(\d+) \S+: ?(\S+)", words).groups()
    return int(timestep), int(unit), float(value)


def test_hover_tells_the_value_in_the_tree_before_and_after_a_slider_moves(page, tree):
    values = abs(tree["rnn"]["hidden_gradient"]).sel(direction="backward")
    before = values.sel(step=200).isel(sample=0, time=3, unit=2)
    assert told(page.hover(1, 3, 2)) == (3, 2, pytest.approx(float(before), rel=6e-3))
    page.tab.locator(".noUi-handle").last.focus()
    page.tab.keyboard.press("ArrowLeft")
    expect(page.tab.locator(".bk-slider-title").last).to_have_text("step: 10")
    page.hover(1, 9, 1)
    after = values.sel(step=10).isel(sample=0, time=3, unit=2)
    assert told(page.hover(1, 3, 2)) == (3, 2, pytest.approx(float(after), rel=6e-3))


def test_zoom_of_one_panel_is_the_zoom_of_the_other(page):
    before = page.frames()
    page.tab.evaluate(
        "() => { Bokeh.documents[0].get_model_by_id(FIGURE).x_range.end = 9 }".replace(
            "FIGURE", f"'{before[0]['id']}'"
        )
    )
    page.until(f"() => ({FRAMES})().every(each => each.end == 9)")
    assert before[0]["end"] != 9


@pytest.mark.parametrize("scale", ["signed_log", "linear"])
def test_hover_reads_signed_values(browser, tmp_path, scale):
    tree = testing.constant_gates(samples=1, steps=12, kind="gru")
    values = -tree["rnn"]["hidden_gradient"].isel(sample=0)
    page = opened(browser, tt.save(plots.heatmap(values, scale=scale), tmp_path / "signed.html"))
    words = page.hover(0, 9, 1).replace("−", "-")
    assert told(words)[2] == pytest.approx(float(values.isel(time=9, unit=1)), rel=6e-3)
    page.tab.close()


def test_hover_says_what_is_no_number(browser, tmp_path):
    tree = testing.nonfinite("cell_gradient", value=float("inf"), sample=1, time=7, unit=2)
    picture = plots.heatmap(tree["rnn"]["cell_gradient"].isel(sample=1))
    page = opened(browser, tt.save(picture, tmp_path / "broken.html"))
    assert page.hover(0, 3, 1).endswith("NaN")
    assert page.hover(0, 7, 2).endswith("+∞")
    page.tab.close()


def test_framed_for_a_notebook_it_draws_without_reaching_the_notebook(browser, tmp_path):
    path = tmp_path / "notebook.html"
    frame = plots.lines(testing.decaying(samples=3))
    path.write_text(
        f"<!doctype html><title>notebook</title>{frame.interactive()._repr_html_()}", encoding="utf-8"
    )
    tab = browser.new_page()
    tab.goto(path.as_uri())
    inner = tab.frame_locator("iframe")
    inner.locator("canvas").first.wait_for(timeout=PATIENCE)
    tab.close()


def test_own_scale_shows_parts_of_each_images_largest_and_goes_back(browser, tmp_path):
    leaf = testing.decaying([0.9, 0.8, 0.7], steps=12)["rnn"].to_dataset()
    sizes = xr.DataArray([100.0, 3.0, 1.0], dims="sample")
    leaf["hidden_gradient"] = leaf["hidden_gradient"] * sizes
    values = abs(leaf["hidden_gradient"]).transpose("sample", "unit", "time").values
    picture = plots.heatmap(leaf, sliders=["sample"])
    page = opened(browser, tt.save(picture, tmp_path / "own.html"))
    assert picture.shown == 1
    assert told(page.hover(0, 5, 1))[2] == pytest.approx(values[1, 1, 5], rel=6e-3)
    page.tab.get_by_text("own scale").click()
    page.hover(0, 9, 2)
    assert told(page.hover(0, 5, 1))[2] == pytest.approx(values[1, 1, 5] / values[1].max(), rel=6e-3)
    page.tab.locator(".noUi-handle").focus()
    page.tab.keyboard.press("ArrowRight")
    page.hover(0, 9, 2)
    assert told(page.hover(0, 5, 1))[2] == pytest.approx(values[2, 1, 5] / values[2].max(), rel=6e-3)
    page.tab.get_by_text("own scale").click()
    page.hover(0, 9, 2)
    assert told(page.hover(0, 5, 1))[2] == pytest.approx(values[2, 1, 5], rel=6e-3)
    assert page.complaints == []


def test_maps_of_magnitudes_turn_round_on_a_dark_page_and_back(browser, tmp_path):
    picture = plots.heatmap(testing.decaying([0.9, 0.8], steps=12))
    page = opened(browser, tt.save(picture, tmp_path / "dark.html"))
    palettes = """() => [...Bokeh.documents[0]._all_models.values()]
        .filter(model => model.tags?.includes("magnitude") && model.palette?.length > 256)[0].palette"""
    colors = picture.marks(Image)[0].colors
    light = page.tab.evaluate(palettes)
    assert light == list(colors.listed())
    page.tab.locator("#scheme").click()
    assert page.tab.evaluate(palettes)[8:] == list(colors.on_dark().palette)
    assert page.tab.evaluate(palettes)[7] == colors.on_dark().color_of("zero")
    page.tab.locator("#scheme").click()
    assert page.tab.evaluate(palettes) == light


INTERACTIVE = """
from throughtime import plots, testing
picture = plots.lines(testing.decaying(samples=3)).interactive()
"""


@pytest.mark.slow
def test_a_notebook_holds_bokeh_once_and_draws_every_picture(browser, tmp_path):
    cells = [nbformat.v4.new_code_cell(source) for source in (INTERACTIVE, "picture", "picture", "picture")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, kernel_manager_class=Kernels, timeout=500, kernel_name="python3").execute()
    shown = [[each.data["text/html"] for each in cell.outputs] for cell in notebook.cells]
    assert [len(each) for each in shown] == [0, 1, 1, 1]
    first, *others = (page for (page,) in shown[1:])
    assert (len(first) > 500_000, max(map(len, others)) < 100_000) == (True, True)
    path = tmp_path / "notebook.html"
    path.write_text("<!doctype html><meta charset=utf-8>" + "".join([first, *others]), encoding="utf-8")
    tab = browser.new_page()
    tab.goto(path.as_uri())
    for place in range(3):
        tab.frame_locator("iframe").nth(place).locator("canvas").first.wait_for(timeout=PATIENCE)
    assert [tab.locator("iframe").nth(place).get_attribute("sandbox") for place in range(3)] == [
        "allow-scripts allow-downloads"
    ] * 3
    path.write_text(f"<!doctype html><meta charset=utf-8>{others[0]}", encoding="utf-8")
    tab.goto(path.as_uri())
    tab.frame_locator("iframe").get_by_text("Restart the kernel").wait_for(timeout=PATIENCE)
    tab.close()
