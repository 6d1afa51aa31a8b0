"""The report in a real browser: offline, quiet, complete, with hover, slider, linked zoom and two schemes."""

from __future__ import annotations

import re

import numpy as np
import pytest
import xarray as xr
from tests.plots.trees import with_steps
from tests.render.browser import chromium, opened

import throughtime as tt
from throughtime import testing
from throughtime._monitor.levels import reduced_tree
from throughtime._store import Run

MOST_BYTES = 5_000_000


def a_tree() -> xr.DataTree:
    """Build two layers, the upper one with gates, of several samples."""
    leaves = {
        "/lower": testing.bidirectional(samples=3, steps=20)["rnn"].to_dataset(),
        "/upper": testing.saturated_gates(samples=3, steps=20)["rnn"].to_dataset(),
    }
    tree = xr.DataTree.from_dict(leaves)
    tree.attrs.update(framework="keras", batch="the arrays given")
    return tree


@pytest.fixture(scope="module")
def tree():
    return a_tree()


@pytest.fixture(scope="module")
def file(tree, tmp_path_factory):
    return tt.report(tree, tmp_path_factory.mktemp("report") / "report.html", title="Two layers")


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def page(browser, file):
    return opened(browser, file)


def test_page_is_small_asks_for_nothing_and_complains_of_nothing(page, file):
    assert file.stat().st_size < MOST_BYTES
    assert [url for url in page.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert page.complaints == []
    policy = page.tab.locator('meta[http-equiv="Content-Security-Policy"]').get_attribute("content")
    assert policy.startswith("default-src 'none'")


def test_contents_lead_to_every_picture_by_keyboard(page):
    links = page.tab.locator("nav a")
    targets = [link.get_attribute("href") for link in links.all()]
    assert len(targets) == len(set(targets)) > 15
    assert all(page.tab.locator(target).count() == 1 for target in targets)
    page.tab.keyboard.press("Tab")
    assert page.tab.evaluate("() => document.activeElement.className") == "skip"
    links.last.focus()
    page.tab.keyboard.press("Enter")
    assert page.tab.url.endswith(targets[-1])


def test_every_picture_is_drawn_and_told_in_words(page):
    figures = page.tab.locator("figure").all()
    for figure in figures:
        assert len(figure.get_attribute("aria-label")) > 20
        assert figure.locator("figcaption").inner_text().endswith(".")
        assert figure.locator("canvas").count() > 0
    assert page.tab.locator("details").count() == 0, "nothing is left out of a whole capture"


def test_tables_tell_certificate_measures_and_origin(page):
    text = page.tab.locator("main").inner_text()
    for words in (
        "agrees",
        "memory horizon",
        "spectral radius",
        "the arrays given",
        f"numpy {np.__version__}",
    ):
        assert words in text
    assert "SimpleRNN" in text


def test_page_opens_with_the_verdict(page, tree, tmp_path):
    first = page.tab.locator("main section").first
    assert "The verdict" in first.inner_text()
    assert "a capture alone cannot tell" in first.inner_text()
    found = tt.diagnose(tree, dependency_length=500)
    written = tt.report(tree, tmp_path / "report.html", diagnosis=found).read_text(encoding="utf-8")
    assert "lag 500 lies beyond it" in written


def test_hover_and_slider_show_values_of_the_tree(page, tree):
    heatmap = 3  # after gradient flow, whose directions are two figures, and the histogram
    assert page.tab.locator("figure").nth(2).locator("h3").inner_text().startswith("|dL/dh")
    values = abs(tree["lower"]["hidden_gradient"]).isel(direction=0)
    first = read(page.hover(heatmap, 15, 2))
    assert first == pytest.approx(float(values.isel(sample=0, time=15, unit=2)), rel=6e-3)
    page.tab.locator(".noUi-handle").first.focus()
    page.tab.keyboard.press("ArrowRight")
    assert page.tab.locator(".bk-slider-title").first.inner_text() == "sample: 1"
    page.hover(heatmap, 5, 1)
    second = read(page.hover(heatmap, 16, 2))
    assert second == pytest.approx(float(values.isel(sample=1, time=16, unit=2)), rel=6e-3)


def read(words: str) -> float:
    return float(re.search(r"dh\S*: ?(\S+)", words)[1])


def test_timesteps_of_a_layer_move_together(page):
    frames = page.frames()
    of_layer = [place for place, each in enumerate(frames) if (each["start"], each["end"]) == (-0.5, 19.5)]
    assert len(of_layer) > 6
    page.tab.evaluate(
        "id => { Bokeh.documents[0].get_model_by_id(id).x_range.end = 11 }", frames[of_layer[3]]["id"]
    )
    page.tab.wait_for_timeout(300)
    moved = [place for place, each in enumerate(page.frames()) if each["end"] == 11]
    assert len(moved) > 3
    assert set(moved) < set(of_layer), "another layer has its own time"


def test_a_phone_shows_the_page_in_its_width(browser, file):
    phone = opened(browser, file, width=390)
    assert phone.tab.evaluate("() => document.documentElement.scrollWidth") == 390
    phone.tab.locator("#scheme").click()
    assert phone.tab.locator("html").get_attribute("data-scheme") == "dark"
    wide = "all => all.filter(each => each.scrollWidth > each.clientWidth).length"
    assert phone.tab.eval_on_selector_all(".drawn", wide) > 0, "panels side by side scroll in their place"
    phone.tab.close()


def test_a_layer_is_reported_alone(tree, tmp_path):
    for number, layer in enumerate((tree["lower"], tree["lower"].to_dataset())):
        text = tt.report(layer, tmp_path / f"{number}.html").read_text(encoding="utf-8")
        assert "SimpleRNN" in text
        assert "LSTM" not in text
    assert "the arrays given" in (tmp_path / "0.html").read_text(encoding="utf-8"), "where it comes from"


def test_dark_and_light_change_page_and_figures(page):
    axis = "[...Bokeh.documents[0].all_models].find(each => each.type == 'LinearAxis')"
    ink = f"() => {axis}.axis_label_text_color"
    background = "() => getComputedStyle(document.body).backgroundColor"
    before = page.tab.evaluate(f"[{ink}, {background}].map(each => each())")
    page.tab.locator("#scheme").click()
    after = page.tab.evaluate(f"[{ink}, {background}].map(each => each())")
    assert before[0] != after[0]
    assert before[1] != after[1]
    page.tab.emulate_media(media="print")
    assert not page.tab.locator("nav").is_visible()
    page.tab.emulate_media(media="screen")


def test_run_has_sliders_for_steps_and_pictures_of_training(browser, tmp_path):
    page = opened(browser, tt.report(with_steps(), tmp_path / "run"))
    names = page.tab.locator("nav ol ol a").all_inner_texts()
    assert {"Hidden gradient while training", "Distribution while training"} <= set(names)
    assert page.tab.locator(".bk-slider-title").nth(1).inner_text() == "step: 200"
    assert page.complaints == []
    page.tab.close()


@pytest.mark.parametrize("level", ["summary", "timestep"])
def test_run_that_keeps_norms_has_its_evolution_and_verdict(browser, tmp_path, level):
    with Run(tmp_path / "run.zarr") as made:
        for step, rate in enumerate((0.5, 0.7, 0.9)):
            made.append(reduced_tree(testing.decaying(rate, samples=3, steps=12), level), step)
    run = tt.open_run(tmp_path / "run.zarr")
    page = opened(browser, tt.report(run, tmp_path / "run"))
    names = page.tab.locator("nav ol ol a").all_inner_texts()
    assert {"Hidden gradient while training", "Signal by lag while training"} <= set(names)
    text = page.tab.locator("#content").inner_text()
    assert "During training, 3 of 3 recorded steps:" in text
    assert "Reach of rnn at lag 4" in text
    assert "Sliders step" not in text
    assert page.complaints == []
    page.tab.close()


def test_capture_with_the_run_it_came_from(browser, tmp_path):
    with Run(tmp_path / "run.zarr") as made:
        for step, rate in enumerate((0.5, 0.7, 0.9)):
            made.append(reduced_tree(testing.decaying(rate, samples=3, steps=12), "timestep"), step)
    capture = testing.decaying(0.9, samples=3, steps=12)
    found = tt.diagnose(capture, dependency_length=4)
    run = tt.open_run(tmp_path / "run.zarr")
    page = opened(browser, tt.report(capture, tmp_path / "page", diagnosis=found, training=run))
    titles = page.tab.locator("h2").all_inner_texts()
    assert titles[:3] == ["The verdict", "Over training", "The model"]
    text = page.tab.locator("#content").inner_text()
    assert text.count(found.text) == 1
    assert "Reach of rnn at lag 4 has risen since step 0" in text
    assert "Hidden gradient while training" in page.tab.locator("nav ol ol a").all_inner_texts()
    page.tab.close()


def test_large_capture_is_sampled_and_shrunk_and_says_so(tmp_path):
    tree = testing.decaying(samples=40, steps=300, units=200)
    file = tt.report(tree, tmp_path / "large.html")
    text = file.read_text(encoding="utf-8")
    assert file.stat().st_size < MOST_BYTES
    assert "Sliders step through 16 of 40 samples" in text
    assert "by the largest magnitude" in text


def test_layer_with_a_failed_certificate_says_what_is_left_out(tmp_path):
    leaf = testing.decaying(samples=2)["rnn"].to_dataset()
    leaf["certificate_time"] = 0.3
    text = tt.report(leaf, tmp_path / "failed.html").read_text(encoding="utf-8")
    assert "does not agree" in text
    assert "Not drawn for this layer" in text
    assert "Lag profile: The gradients of rnn do not agree" in text


def test_nothing_to_report_and_no_place_to_write_are_refused(tree, tmp_path):
    with pytest.raises(tt.SchemaError, match="no layer"):
        tt.report(xr.DataTree(), tmp_path / "report.html")
    with pytest.raises(tt.SchemaError, match=r"tt.capture\(model, x, y\)"):
        tt.report(3, tmp_path / "report.html")
    with pytest.raises(tt.PictureError, match=r"\.html"):
        tt.report(tree, tmp_path / "report.pdf")
    assert not list(tmp_path.iterdir())


def test_names_are_words_and_never_a_program(tmp_path):
    leaf = testing.decaying(samples=2)["rnn"].to_dataset().assign_attrs(layer="<script>alert(1)")
    tree = xr.DataTree.from_dict({"/<script>alert(2)": leaf})
    tree.attrs["batch"] = "</script><script>alert(3)"
    text = tt.report(tree, tmp_path / "names.html", title="<script>alert(4)").read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(4)" in text
