"""The report in a real browser: offline, quiet, complete, with hover, slider, linked zoom and two schemes."""

from __future__ import annotations

import re

import numpy as np
import pypdf
import pytest
import xarray as xr
from playwright.sync_api import expect
from tests.plots.trees import with_steps
from tests.render.browser import FRAMES, chromium, opened

import throughtime as tt
from throughtime import testing
from throughtime._monitor.levels import reduce_tree
from throughtime._store import Run

MOST_BYTES = 4_000_000
TWO_DRAWN = "() => Bokeh.documents.length == 2 && Bokeh.documents.every(each => each.is_idle)"


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


@pytest.fixture(scope="module")
def whole(browser, file):
    """The page with all folds open."""
    return unfolded(opened(browser, file))


def test_page_is_small_asks_for_nothing_and_complains_of_nothing(page, file):
    assert file.stat().st_size < MOST_BYTES
    assert [url for url in page.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert page.complaints == []
    policy = page.tab.locator('meta[http-equiv="Content-Security-Policy"]').get_attribute("content")
    assert policy.startswith("default-src 'none'")


def test_answer_and_its_plot_are_seen_first(page):
    """The plot lies within the first 900 pixels, the folds within four screens."""
    assert page.tab.locator("h1").bounding_box()["y"] < 100
    assert page.tab.locator("dl.facts dt").all_inner_texts() == ["Reach at lag 8", "Use at lag 8", "Horizon"]
    box = page.tab.locator("#reach .drawn").bounding_box()
    assert box["y"] + box["height"] < 900
    assert page.tab.locator("details.fold").first.bounding_box()["y"] < 4 * 900
    assert page.tab.locator("details.fold[open]").count() == 0


def test_contents_lead_to_every_section_by_keyboard_and_unfold_it(page):
    links = page.tab.locator("nav a")
    targets = [link.get_attribute("href") for link in links.all()]
    assert len(targets) == len(set(targets)) == 8
    assert all(page.tab.locator(target).count() == 1 for target in targets)
    page.tab.keyboard.press("Tab")
    page.until("() => document.activeElement.className == 'skip'")
    lower = page.tab.locator("nav a", has_text="lower")
    lower.focus()
    page.tab.keyboard.press("Enter")
    expect(page.tab.locator("details.fold[open] > summary b")).to_have_text(["lower"])


def test_every_picture_is_drawn_and_put_in_words(whole):
    page = whole
    for figure in page.tab.locator("figure").all():
        assert len(figure.get_attribute("aria-label")) > 20
        assert figure.locator("figcaption").text_content().endswith(".")
        assert figure.locator("canvas").count() > 0
    assert page.tab.locator("details", has_text="Not drawn for this layer").count() == 0, (
        "all apply to a capture"
    )
    assert page.complaints == []


def unfolded(page):
    """Open all folds and wait until their figures are drawn."""
    count = page.tab.evaluate("""() => {
        for (const fold of document.querySelectorAll("details")) fold.open = true
        for (const choice of document.querySelectorAll(".choice")) choice.hidden = false
        return document.querySelectorAll("details.fold").length
    }""")
    page.tab.wait_for_function(
        "count => Bokeh.documents.length == count + 1 && Bokeh.documents.every(each => each.is_idle)",
        arg=count,
        timeout=120_000,
    )
    return page


def test_one_of_several_quantities_is_seen(browser, file):
    page = opened(browser, file)
    page.tab.locator("details.fold > summary", has_text="upper").click()
    place = page.tab.locator("details.fold[open] .choices").first
    expect(place.locator("figure:visible")).to_have_count(1)
    place.get_by_label("Hidden state").check()
    expect(place.locator("figure:visible h3").first).to_have_text(re.compile("^hₜ"))
    page.tab.close()


def test_tables_name_certificate_measures_and_origin(page):
    text = page.tab.locator("main").text_content()
    for words in (
        "agrees",
        "effective steps",
        "spectral radius",
        "the arrays given",
        f"numpy {np.__version__}",
    ):
        assert words in text
    assert "SimpleRNN" in text


def test_every_term_of_the_tables_is_defined(page):
    terms = page.tab.locator("dl.terms").inner_text()
    for word in ("reach R(k)", "use U(k)", "horizon", "share", "k90", "effective steps", "decay rate"):
        assert word in terms
    for word in ("τ", "spectral radius", "certificate", "Lyapunov", "lag", "floor", "hidden gradient"):
        assert word in terms
    assert "coherence" not in terms, "the page does not use it"


def test_page_opens_with_the_verdict(page, tree, tmp_path):
    first = page.tab.locator("main section").first
    assert "it needs the model and its data" in first.inner_text()
    found = tt.diagnose(tree, dependency_length=500)
    written = tt.report(tree, tmp_path / "report.html", diagnosis=found).read_text(encoding="utf-8")
    assert "Only longer sequences can show lag 500" in written


def test_hover_and_slider_show_values_of_the_tree(browser, file, tree):
    page = opened(browser, file)
    page.tab.locator("details.fold > summary", has_text="lower").click()
    page.until(TWO_DRAWN)
    heatmap = 1  # after the answer; one figure a direction
    values = abs(tree["lower"]["hidden_gradient"]).isel(direction=0)
    slider = page.tab.locator(".bk-slider-title").first

    def shown() -> int:
        return int(re.search(r"sample: (\d+)", slider.inner_text())[1])

    before, first = shown(), read(page.hover(heatmap, 15, 2))
    assert first == pytest.approx(float(values.isel(sample=before, time=15, unit=2)), rel=6e-3)
    page.tab.locator(".noUi-handle").first.focus()
    page.tab.keyboard.press("ArrowLeft" if before else "ArrowRight")
    expect(slider).not_to_have_text(re.compile(f"sample: {before}$"))
    after = shown()
    page.hover(heatmap, 5, 1)
    second = read(page.hover(heatmap, 16, 2))
    assert second == pytest.approx(float(values.isel(sample=after, time=16, unit=2)), rel=6e-3)
    page.tab.close()


def read(words: str) -> float:
    return float(re.search(r"dh\S*: ?(\S+)", words)[1])


def test_timesteps_of_a_layer_move_together(whole):
    page = whole
    frames = page.frames()
    of_layer = [place for place, each in enumerate(frames) if (each["start"], each["end"]) == (-0.5, 19.5)]
    assert len(of_layer) > 6
    set_end = "id => { for (const each of Bokeh.documents) { const one = each.get_model_by_id(id)\n"
    page.tab.evaluate(f"{set_end} if (one) one.x_range.end = 11 }} }}", frames[of_layer[3]]["id"])
    page.until(f"() => ({FRAMES})().filter(each => each.end == 11).length > 2")
    moved = [place for place, each in enumerate(page.frames()) if each["end"] == 11]
    assert set(moved) < set(of_layer), "another layer has its own time"


@pytest.mark.slow
def test_a_phone_shows_the_page_in_its_width(browser, file):
    phone = unfolded(opened(browser, file, width=390))
    phone.until("() => document.documentElement.scrollWidth == 390")
    fits = "[...document.querySelectorAll('.drawn')].every(each => each.scrollWidth <= each.clientWidth)"
    phone.tab.wait_for_function(fits, timeout=60_000)
    lines = """cell => {
      const text = document.createRange()
      text.selectNodeContents(cell)
      return new Set([...text.getClientRects()].map(each => each.top)).size
    }"""
    intervals = phone.tab.locator("td", has_text="[").all()
    assert intervals
    assert {interval.evaluate(lines) for interval in intervals} == {1}, "a number is not broken"
    phone.tab.locator("#scheme").click()
    expect(phone.tab.locator("html")).to_have_attribute("data-scheme", "dark")
    phone.tab.close()


def test_print_has_neither_toolbars_nor_sliders(browser, file):
    page = opened(browser, file)
    page.tab.locator("details.fold > summary", has_text="lower").click()
    page.until(TWO_DRAWN)
    controls = page.tab.locator(".bk-Toolbar:visible, .bk-Slider:visible, #scheme:visible, fieldset:visible")
    assert controls.count() > 3
    page.tab.emulate_media(media="print")
    expect(controls).to_have_count(0)
    expect(page.tab.locator("#reach canvas").first).to_be_visible()
    expect(page.tab.locator("nav")).to_be_hidden()
    page.tab.close()


def test_a_printed_report_has_its_figures_without_controls(browser, file, tmp_path):
    page = opened(browser, file)
    page.tab.locator("details.fold > summary", has_text="lower").click()
    page.until(TWO_DRAWN)
    visible = page.tab.locator("figure:visible").count()
    titles = page.tab.locator("figure:visible h3").all_inner_texts()
    page.tab.pdf(path=tmp_path / "report.pdf", format="A4")
    sheets = pypdf.PdfReader(tmp_path / "report.pdf").pages
    text = " ".join(" ".join(sheet.extract_text() for sheet in sheets).split())
    assert visible == len(titles) > 3
    for words in (page.tab.locator("h1").inner_text(), "lower", *titles):
        assert " ".join(words.split()) in text
    for control in ("own scale", "sample: ", "Dark", ": quantity"):
        assert control not in text
    assert sum(len(sheet.images) for sheet in sheets) >= visible
    page.tab.close()


def test_the_title_is_that_of_the_sample_shown(browser, tree, tmp_path):
    late = tree["lower"].to_dataset().isel(direction=[0])
    late["hidden_gradient"][{"sample": 1}] = 0.0
    page = opened(browser, tt.report(late, tmp_path / "titles.html"))
    page.tab.locator("details.fold > summary", has_text="rnn").click()
    page.until(TWO_DRAWN)
    figure = page.tab.locator("details.fold[open] figure:visible").first
    handle = page.tab.locator(".noUi-handle").first
    handle.focus()
    for key, sample in (("Home", 0), ("ArrowRight", 1), ("ArrowRight", 2)):
        handle.press(key)
        ending = "is exactly 0 everywhere" if sample == 1 else r"lies in \d+ of 20 timesteps, .*"
        expect(figure.locator("h3")).to_have_text(re.compile(rf"{ending} \(sample {sample}\)$"))
        expect(figure).to_have_attribute("aria-label", re.compile(rf"{ending} \(sample {sample}\)\."))
    page.tab.close()


def test_a_layer_is_reported_alone(tree, tmp_path):
    for number, layer in enumerate((tree["lower"], tree["lower"].to_dataset())):
        text = tt.report(layer, tmp_path / f"{number}.html").read_text(encoding="utf-8")
        assert "SimpleRNN" in text
        assert "<b>upper</b>" not in text
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


def test_figures_drawn_after_a_change_of_scheme_have_its_inks(browser, file):
    page = opened(browser, file)
    page.tab.locator("#scheme").click()
    page.tab.locator("details.fold > summary", has_text="lower").click()
    page.until(TWO_DRAWN)
    axis = "each => [...each.all_models].find(one => one.type == 'LinearAxis').axis_label_text_color"
    page.until(f"() => new Set(Bokeh.documents.map({axis})).size == 1")
    page.tab.close()


def figures(page):
    """Names of all figures and of the quantities behind their switches."""
    names = page.tab.eval_on_selector_all("fieldset label", "all => all.map(each => each.textContent.trim())")
    return names, page.tab.eval_on_selector_all("figure h3", "all => all.map(each => each.textContent)")


def test_run_has_sliders_for_steps_and_pictures_of_training(browser, tmp_path):
    page = unfolded(opened(browser, tt.report(with_steps(), tmp_path / "run")))
    _, titles = figures(page)
    assert len(titles) > 3
    assert "step: 200" in page.tab.locator(".bk-slider-title").all_inner_texts()
    assert page.complaints == []
    page.tab.close()


@pytest.mark.parametrize("level", ["summary", "timestep"])
def test_run_that_keeps_norms_has_its_evolution_and_verdict(browser, tmp_path, level):
    with Run(tmp_path / "run.zarr", attributes={"git_commit": "0123abc"}) as made:
        for step, rate in enumerate((0.5, 0.7, 0.9)):
            made.append(reduce_tree(testing.decaying(rate, samples=3, steps=12), level), step)
    run = tt.open_run(tmp_path / "run.zarr")
    page = opened(browser, tt.report(run, tmp_path / "run"))
    names, _ = figures(page)
    assert {"Hidden gradient", "Reach by lag"} <= set(names)
    text = page.tab.locator("#content").text_content()
    assert "During training, 3 of 3 recorded steps:" in text
    assert "Reach of rnn at lag 4" in text
    assert "Sliders step" not in text
    curves = page.tab.locator("table.sparks svg")
    assert curves.count() == 2, "loss, and the layer's reach"
    origin = page.tab.locator("#origin").inner_text()
    assert all(words in origin for words in ("0123abc", str(tmp_path / "run.zarr"), "written"))
    assert page.complaints == []
    page.tab.close()


def test_capture_with_the_run_it_came_from(browser, tmp_path):
    with Run(tmp_path / "run.zarr") as made:
        for step, rate in enumerate((0.5, 0.7, 0.9)):
            made.append(reduce_tree(testing.decaying(rate, samples=3, steps=12), "timestep"), step)
    capture = testing.decaying(0.9, samples=3, steps=12)
    found = tt.diagnose(capture, dependency_length=4)
    run = tt.open_run(tmp_path / "run.zarr")
    page = opened(browser, tt.report(capture, tmp_path / "page", diagnosis=found, training=run))
    titles = page.tab.locator("h2").all_inner_texts()
    assert titles == ["What to do", "While it trained", "Layer by layer", "Terms", "How this report was made"]
    text = page.tab.locator("#content").text_content()
    assert text.count(found.text) == 1
    assert "Reach of rnn at lag 4 has risen since step 0" in text
    page.tab.close()


def test_certificate_that_is_not_defined_is_no_nan(tmp_path):
    leaf = testing.decaying(samples=2)["rnn"].to_dataset()
    leaf["certificate_time"], leaf["certificate_weights"] = np.nan, np.nan
    text = tt.report(leaf, tmp_path / "own.html").read_text(encoding="utf-8")
    table = re.search(r"<caption>Certificate.*?</table>", text, re.DOTALL)[0]
    assert "not defined" in table
    assert "nan" not in table


@pytest.mark.parametrize("names", [("certificate_time",), ("certificate_time", "certificate_output")])
def test_each_certificate_stands_below_its_own_heading(tmp_path, names):
    leaf = testing.decaying(samples=2)["rnn"].to_dataset().drop_vars("certificate_weights", errors="ignore")
    values = dict(zip(names, (1.1e-14, 2.2e-14), strict=False))
    text = tt.report(leaf.assign(values), tmp_path / "own.html").read_text(encoding="utf-8")
    table = re.search(r"<caption>Certificate.*?</table>", text, re.DOTALL)[0]
    cells = [re.sub("<.*?>", "", each) for each in re.findall(r"<t[hd][ >].*?</t[hd]>", table, re.DOTALL)]
    row = dict(zip(cells[:6], cells[6:], strict=True))
    assert row["weight gradients"] == "not compared"
    assert row["input gradients, step by step"].startswith("1.1")
    assert row["output"].startswith("2.2" if len(names) > 1 else "not compared")


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
    assert "Step contributions: The gradients of rnn do not agree" in text


def test_nothing_to_report_and_no_place_to_write_are_refused(tree, tmp_path):
    with pytest.raises(tt.SchemaError, match="no layer"):
        tt.report(xr.DataTree(), tmp_path / "report.html")
    with pytest.raises(tt.SchemaError, match=r"tt.capture\(model, x, y\)"):
        tt.report(3, tmp_path / "report.html")
    with pytest.raises(tt.PictureError, match=r"\.html"):
        tt.report(tree, tmp_path / "report.pdf")
    assert not list(tmp_path.iterdir())


LEFT = """text => {
  const sentence = document.querySelector("#verdict ~ .verdict")
  const walker = document.createTreeWalker(sentence, NodeFilter.SHOW_TEXT)
  for (let node; (node = walker.nextNode());) {
    const start = node.data.indexOf(text), range = document.createRange()
    if (start < 0) continue
    range.setStart(node, start), range.setEnd(node, start + text.length)
    return range.getBoundingClientRect().left
  }
}"""


def test_sentences_keep_their_order_around_a_name_from_right_to_left(browser, tmp_path):
    leaves = {f"/{name}": testing.decaying(0.5, samples=16)["rnn"] for name in ("שכבה", "second")}
    tree = xr.DataTree.from_dict({path: leaf.to_dataset() for path, leaf in leaves.items()})
    page = opened(browser, tt.report(tree, tmp_path / "report.html"))
    places = [page.tab.evaluate(LEFT, part) for part in ("of its size", "שכבה", " and ", "in second")]
    assert places == sorted(places)


@pytest.mark.parametrize("width", [390, 1280])
def test_long_names_neither_widen_the_page_nor_squeeze_the_plot(browser, tmp_path, width):
    leaf = testing.decaying(samples=4)["rnn"].to_dataset()
    names = ["_".join(["encoder_block_recurrent", str(place)] * 5) for place in range(6)]
    tree = xr.DataTree.from_dict({f"/{name}": leaf for name in names})
    page = opened(browser, tt.report(tree, tmp_path / "report.html"), width=width)
    assert page.tab.evaluate("document.documentElement.scrollWidth") == width
    assert page.frames()[0]["height"] > 120


def test_names_are_words_and_never_a_program(tmp_path):
    leaf = testing.decaying(samples=2)["rnn"].to_dataset().assign_attrs(layer="<script>alert(1)")
    tree = xr.DataTree.from_dict({"/<script>alert(2)": leaf})
    tree.attrs["batch"] = "</script><script>alert(3)"
    text = tt.report(tree, tmp_path / "names.html", title="<script>alert(4)").read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(4)" in text
