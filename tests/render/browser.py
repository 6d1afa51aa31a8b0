"""A real Chromium for tests of pages: what it asked for, what it complained of, what a hover shows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect, sync_playwright

PATIENCE = 60_000  # milliseconds, in which a page on a busy machine has long done what was asked
NO_CHROMIUM = "there is no Chromium: apt-get install chromium"
NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# Every image of the figures, by the place of its figure in the document: its box on the screen.
FRAMES = """() => Bokeh.documents.flatMap(document => [...document._all_models.values()]
    .filter(model => model.type == "Figure").map(model => {
        const view = Bokeh.index.find_one(model)
        const around = view.el.getBoundingClientRect(), box = view.frame.bbox
        return {left: around.left + box.left, top: around.top + box.top, width: box.width, height: box.height,
                start: model.x_range.start, end: model.x_range.end, bottom: model.y_range.start,
                top_value: model.y_range.end, id: model.id}
    }))"""
_TOOLTIPS = """() => {
    const found = []
    const walk = node => {
        if (String(node.className ?? "").includes("bk-Tooltip"))
            for (const part of node.shadowRoot.children)
                if (part.tagName != "STYLE") found.push(part.innerText)
        for (const child of [...node.childNodes, ...(node.shadowRoot?.childNodes ?? [])]) walk(child)
    }
    walk(document.body)
    return found.join(" ")
}"""


@dataclass
class Page:
    """An open page."""

    tab: Any
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def frames(self) -> list[dict[str, float]]:
        """Where the figures lie, and which part of their axes they show."""
        return self.tab.evaluate(FRAMES)

    def hover(self, figure: int, x: float, y: float) -> str:
        """Move the mouse to a point of a figure's axes and read the tooltip."""
        self.tab.mouse.move(*self.point(figure, x, y))
        before, now = None, ""
        for _ in range(20):  # a busy machine draws late: read until there is a text that stays
            if now and now == before:
                break
            self.tab.wait_for_timeout(250)
            before, now = now, " ".join(self.tab.evaluate(_TOOLTIPS).split())
        return now

    def until(self, condition: str, argument: Any = None) -> None:
        """Wait until a JavaScript condition holds: what a key or a click starts may end later."""
        self.tab.wait_for_function(condition, arg=argument, timeout=PATIENCE)

    def point(self, figure: int, x: float, y: float) -> tuple[float, float]:
        """Give the place on the screen of a point of a figure's axes, scrolled into view."""
        self.tab.evaluate("top => window.scrollBy(0, top - 100)", self.frames()[figure]["top"])
        self.tab.wait_for_timeout(100)
        box = self.frames()[figure]
        across = (x - box["start"]) / (box["end"] - box["start"])
        up = (y - box["bottom"]) / (box["top_value"] - box["bottom"])
        return box["left"] + across * box["width"], box["top"] + (1 - up) * box["height"]


def path_of_chromium() -> str | None:
    """Find the system's Chromium."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def chromium() -> Iterator[Any]:
    """Start the system's Chromium."""
    path = path_of_chromium()
    if path is None:
        pytest.skip(NO_CHROMIUM)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()


def opened(browser: Any, path: Path, *, width: int = 1200) -> Page:
    """Open a file and wait until its figures are drawn."""
    return visited(browser, path.as_uri(), width=width)


def visited(browser: Any, url: str, *, width: int = 1200) -> Page:
    """Open an address and wait until its figures are drawn."""
    page = empty(browser, width=width)
    page.tab.goto(url)
    page.tab.wait_for_function(
        "() => Bokeh.documents.length > 0 && Bokeh.documents.every(each => each.is_idle)"
    )
    return page


def empty(browser: Any, *, width: int = 1200) -> Page:
    """Open an empty page that notes what it asks for and complains of."""
    page = Page(browser.new_page(viewport={"width": width, "height": 900}))
    page.tab.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    page.tab.on("request", lambda request: page.requests.append(request.url))
    page.tab.on("websocket", lambda socket: page.requests.append(socket.url))
    page.tab.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.tab.on("console", lambda message: _listen(page, message))
    return page


def _listen(page: Page, message: Any) -> None:
    # Bokeh 3.10 removes the labels of an axis twice when they change, which does no harm.
    is_bokehs = "Text" in message.text and message.text.endswith("view was already destroyed")
    if message.type in ("warning", "error") and not is_bokehs:
        page.complaints.append(message.text)
