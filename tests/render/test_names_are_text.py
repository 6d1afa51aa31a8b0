"""Names from models and runs are text in every page: nothing in them runs, loads or becomes an element."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import xarray as xr
from playwright.sync_api import expect
from tests.plots.test_every_picture import PICTURES
from tests.plots.trees import with_steps
from tests.render.browser import PATIENCE, chromium, empty, opened, visited
from tests.render.hostile import Trap, called, check, elements, names, trap

import throughtime as tt
from throughtime import plots, testing
from throughtime._common.text.printable import printable
from throughtime._monitor.levels import reduce_tree
from throughtime._pages.live import Server
from throughtime._store import Run
from throughtime.diagnostics.alarm import Alarm, as_attribute
from throughtime.picture._render.report import Opening, Section, report_page

ALL = tuple(names(""))
OTHERS = ("compare", "lag_matrix", "scatter")  # than those of a report of an LSTM and its run
TREES = {
    "evolution": with_steps,
    "training": with_steps,
    "lag_matrix": lambda: testing.lag_matrix_of(samples=2, steps=6),
}


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def trapped():
    with trap() as listening:
        yield listening


def small() -> xr.DataTree:
    return testing.constant_gates(samples=2, steps=6, units=2)


def picture(kind: str, name: str) -> Any:
    tree = called(TREES.get(kind, small)(), name)
    if kind == "compare":
        return plots.compare(tree, tree, names=(name, f"{name} again"), title=name)
    if kind == "scatter":
        return plots.scatter(tree.leaves[0]["hidden_gradient"].isel(time=-1), title=name)
    return getattr(plots, kind)(tree, **({"sliders": ["sample"]} if kind == "heatmap" else {}))


def all_names(trapped: Trap) -> str:
    """Give all names as one, the one that swallows what follows as the last."""
    return " ".join(sorted(names(trapped.address).values(), key=lambda name: "<!--" in name))


def harmless(name: str) -> str:
    """Give a name of the same length without a character that means anything."""
    return re.sub(r"[^\w\s/]", "n", name)


def ours(browser: Any, path: Path) -> Counter[str]:
    """Count the elements of the same page with a harmless name."""
    page = opened(browser, path)
    found = elements(page)
    page.tab.close()
    return found


def gallery(name: str, path: Path) -> Path:
    """Draw on one page the kinds of picture that a report does not have."""
    sections = [
        Section(name, name, figures=((name, ((name, picture(kind, name)),)),), left_out=(name,))
        for kind in OTHERS
    ]
    path.write_text(report_page(name, Opening(name, ""), sections, tt.Theme()), encoding="utf-8")
    return path


def report(name: str, path: Path) -> Path:
    run = called(with_steps(), name)
    run.attrs["alarms"] = as_attribute([Alarm(name, name, 3, name)])
    return tt.report(called(small(), name), path, training=run, title=name)


@pytest.mark.parametrize("drawn", [gallery, report])
def test_every_kind_of_picture_and_table(browser, trapped, tmp_path, drawn):
    name = all_names(trapped)
    known = ours(browser, drawn(harmless(name), tmp_path / "ours.html"))
    page = opened(browser, drawn(name, tmp_path / "page.html"))
    check(page, trapped, known)
    page.tab.close()


@pytest.mark.slow
def test_a_page_with_each_name_when_its_slider_moves_and_a_value_is_shown(browser, trapped, tmp_path):
    known = ours(browser, tt.save(picture("heatmap", "a sample"), tmp_path / "ours.html"))
    for each, name in names(trapped.address).items():
        page = opened(browser, tt.save(picture("heatmap", name), tmp_path / f"{each}.html"))
        check(page, trapped, known)
        page.tab.locator(".noUi-handle").focus()
        page.tab.keyboard.press("ArrowRight")
        expect(page.tab.locator(".bk-slider-title")).to_have_text(re.compile(" 1$"))
        assert "timestep: 3" in page.hover(0, 3, 1)
        assert page.complaints == []
        assert trapped.asked == []
        assert page.tab.evaluate("() => window.owned ?? null") is None
        page.tab.close()


def notebook(name: str, path: Path) -> Path:
    """Write what a notebook shows of a summary, diagnoses, a comparison and a picture."""
    tree, run = called(small(), name), called(with_steps(), name)
    found = tt.diagnose(tree)
    shown = [tt.summary(tree), found, tt.diagnose(run), tt.compare(found, found)]
    shown.append(picture("heatmap", name).interactive())
    cells = "".join(f"<div>{each._repr_html_()}</div>" for each in shown)
    path.write_text(f"<!doctype html><meta charset=utf-8><title>notebook</title>{cells}", encoding="utf-8")
    return path


@pytest.mark.slow
def test_a_notebook(browser, trapped, tmp_path):
    found = []
    for name in (harmless(all_names(trapped)), all_names(trapped)):
        page = empty(browser)
        page.tab.goto(notebook(name, tmp_path / "notebook.html").as_uri())
        page.tab.frame_locator("iframe").locator("canvas").first.wait_for(timeout=PATIENCE)
        found.append(page)
    check(found[1], trapped, elements(found[0]))


@pytest.mark.parametrize("kind", PICTURES)
def test_a_static_picture_of_every_kind(trapped, tmp_path, kind):
    known = names(trapped.address)
    drawn = picture(kind, f"{known['mathjax']} {known['line']}")
    for suffix in ("png", "pdf"):
        assert tt.save(drawn, tmp_path / f"picture.{suffix}").stat().st_size > 1000
    assert "owned" not in tt.save(drawn, tmp_path / "picture.svg").read_text("utf-8")


@pytest.mark.parametrize("each", ALL)
def test_a_static_picture_with_each_name(browser, trapped, tmp_path, each):
    name = names(trapped.address)[each]
    labelled = called(small(), name).leaves[0]["gate_activation"].rename(name)
    tt.show_features_1D(labelled, savepath=tmp_path / "classic.svg", show_title=name)
    plt.close("all")
    page = empty(browser)
    page.tab.goto(tt.save(picture("heatmap", name), tmp_path / "heatmap.svg").as_uri())
    assert page.tab.evaluate("() => document.documentElement.tagName") == "svg"
    assert not {"script", "foreignObject", "img"} & {each.split()[0] for each in elements(page)}
    assert page.complaints == trapped.asked == []
    page.tab.close()


def as_one_node(name: str) -> str:
    """Leave out what parts the names of a run's nodes."""
    return re.sub(r"[/\\]", "|", printable(name).replace("\n", " "))


def test_the_live_page(browser, trapped, tmp_path):
    folder = tmp_path / "<img src=x onerror=window.owned=1> \\(x\\) $$y$$"
    server = Server(folder)
    waiting = visited(browser, server.url)
    found = elements(waiting)
    leaf = reduce_tree(small(), "summary")["rnn"].to_dataset()
    several = {f"/{each} {as_one_node(name)}": leaf for each, name in names(trapped.address).items()}
    tree = xr.DataTree.from_dict(several)
    every = all_names(trapped)
    attributes = {"framework": every, "framework_version": every, "batch": every}
    attributes["alarms"] = as_attribute(
        [Alarm("explosion", name, 3, name) for name in names(trapped.address).values()]
    )
    with Run(folder, attributes=attributes) as run:
        run.append(tree, 0)
    alarms = "Bokeh.documents[0].get_model_by_name('alarms').text"
    waiting.tab.wait_for_function(f"() => {alarms}.includes('entity')")
    assert found["B"] == 1
    check(waiting, trapped, elements(waiting))
    assert {"IMG", "IFRAME", "FORM", "OBJECT"}.isdisjoint(each.split()[0] for each in elements(waiting))
    server.close()
    waiting.tab.close()
