"""One open page: what is chosen on it, and each second what is new.

A page reads the run by itself, so that several can be open on different layers.
"""

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
from bokeh.document import Document
from bokeh.layouts import row
from bokeh.models import CustomJS, InlineStyleSheet
from bokeh.models.widgets import Select

from throughtime._common.text.printable import printable
from throughtime._errors import StoreError
from throughtime._pages.live import words
from throughtime._pages.live.evolution import MOST_ROWS
from throughtime._pages.live.figures import LAST, Curves, Loss
from throughtime._pages.live.follower import Follower
from throughtime._pages.live.panels import LayerPanels, text
from throughtime._pages.live.records import View, losses, of_training_loop, stride, views
from throughtime.picture._drawing.theme import Theme
from throughtime.picture._render.bokeh_text import template_text
from throughtime.picture._render.page import inks, on_page, template

_WRAP = ":host { flex-wrap: wrap !important; width: 100% !important; }"
_NOTHING = "nothing"
_TWO = 'document.querySelector("main").classList.toggle("two", this.value != "nothing")'
PERIOD = 1000  # milliseconds between looks
_LAST_ON_DARK = "#56b4e9"


class Page:
    """Fills a Bokeh document with the run in the folder `path`, and keeps it up to date."""

    def __init__(self, document: Document, path: Path) -> None:
        self._follower = Follower(path)
        self._generation, self._count = -1, 0
        self._views: dict[str, tuple[list[str], list[str]]] = {}
        self._is_choosing = False
        theme = Theme()
        drawn = on_page(theme)
        self._loss = Loss(drawn)
        self._loop = Curves("loop", drawn, "norm, ratio, share", is_log=True)
        self._panels = LayerPanels(drawn), LayerPanels(drawn, "_beside")
        self._texts = {name: text(name) for name in ("state", "alarms", "loop_key")}
        self._choices = {name: _select(name) for name in ("layer", "direction", "quantity", "lag", "beside")}
        for name, choice in self._choices.items():
            choice.on_change("value", self._choose_lag if name == "lag" else self._choose)
        self._choices["beside"].js_on_change("value", CustomJS(code=_TWO))
        self._texts["state"].text = str(words.waiting(path))
        document.title = printable(f"{path.name} · throughtime")
        document.template = template("live.html")
        document.template_variables.update(inks(theme, {LAST: _LAST_ON_DARK}))
        for panels in self._panels:
            for model in panels.models:
                document.add_root(model)
        for part in (self._loss, self._loop):
            document.add_root(part.figure)
        # Bokeh lays a row out in one line; a phone needs several.
        document.add_root(
            row(*self._choices.values(), name="choices", margin=0, stylesheets=[InlineStyleSheet(css=_WRAP)])
        )
        for each in self._texts.values():
            document.add_root(each)
        self.look()
        document.add_periodic_callback(self.look, PERIOD)

    def look(self) -> None:
        """Show what was committed since; a run that changes while it is read is read at the next look."""
        follower = self._follower
        try:
            if follower.refresh():
                self._update()
            elif follower.steps:
                self._write()
        except Exception as error:
            # Each of xarray, zarr and the file system has its own for what moves away under a reader.
            if follower.is_same_folder() or (isinstance(error, StoreError) and not follower.steps):
                self._complain(error)
            else:
                follower.forget()

    def _complain(self, error: Exception) -> None:
        """Write an error on the page and, unless the run is its cause, once into the log."""
        text = str(words.unreadable(self._follower.path, error))
        if not isinstance(error, StoreError) and text != self._texts["state"].text:
            logging.getLogger(__name__).warning("The live page met an error", exc_info=error)
        self._texts["state"].text = text

    def _update(self) -> None:
        tree, steps = self._follower.tree, self._follower.steps
        if tree is None or not steps:
            return
        if self._follower.generation != self._generation:
            self._generation, self._views = self._follower.generation, views(tree)
            self._offer()
            self._start_over()
        elif len(steps) > self._count:
            self._add()
        self._write()

    def _start_over(self) -> None:
        """Draw the chosen views from the run's first record on."""
        for part in (self._loss, self._loop, *self._panels):
            part.reset()
        self._count = 0
        if self._follower.steps:
            self._add()

    def _add(self) -> None:
        """Read the records that are new, as many as are drawn, and show them."""
        tree, steps = self._follower.tree, self._follower.steps
        if tree is None:
            return
        found, loop = losses(tree, self._count), of_training_loop(tree, self._count)
        read = [panels.read(tree, self._count, len(steps)) for panels in self._panels]
        if any(map(LayerPanels.is_longer, self._panels, read)):  # longer sequences than any before
            self._start_over()
            return
        fresh = np.asarray(steps[self._count :], float)
        self._loss.add(fresh, found)
        self._loop.add(fresh, loop)
        for panels, each in zip(self._panels, read, strict=True):
            panels.add(fresh, len(steps), each)
        self._count = len(steps)
        if self._panels[0].rows is not None:
            self._offer_lags(self._panels[0].rows.ratios.shape[-1])
        self._tabulate()

    def _tabulate(self) -> None:
        for panels, recorded in zip(self._panels, (self._count, None), strict=True):
            panels.tabulate(recorded, int(self._choices["lag"].value or 0))

    def _offer_lags(self, count: int) -> None:
        """Offer lags 1, 2, 4, … of the window, and half of it, which is chosen first."""
        powers = {2**power for power in range(count.bit_length())}
        options = sorted({*powers, count // 2} & {*range(1, count)})
        choice, named = self._choices["lag"], [str(each) for each in options]
        if choice.options != named:
            kept = choice.value if choice.value in named else str(count // 2)
            self._is_choosing = True
            choice.update(options=named, value=kept if named else "", visible=len(named) > 1)
            self._is_choosing = False

    def _write(self) -> None:
        follower = self._follower
        attributes = {} if follower.tree is None else follower.tree.attrs
        doing = words.activity(time.time() - follower.committed_at, is_ended=follower.is_ended)
        state = words.state(
            follower.path, attributes, follower.committed_at, stride(self._count, MOST_ROWS), doing
        )
        self._texts["state"].text = str(state)
        self._texts["loop_key"].text = str(words.key(self._loop.names))
        self._texts["alarms"].text = str(words.alarms(attributes))

    def _offer(self) -> None:
        """Fill the choices from what the run has, keeping those made where they are still there."""
        main, beside = self._panels
        if not self._views:
            main.choose(None)
            beside.choose(None)
            return
        chosen = main.view or View("", "", "")
        layer = chosen.layer if chosen.layer in self._views else next(iter(self._views))
        directions, quantities = self._views[layer]
        direction = chosen.direction if chosen.direction in directions else directions[0]
        quantity = chosen.quantity if chosen.quantity in quantities else quantities[0]
        main.choose(View(layer, direction, quantity))
        offered = (
            View(path, way, quantity if quantity in known else known[0])
            for path, (ways, known) in self._views.items()
            for way in ways
        )
        others = {view.name: view for view in offered}
        second = str(self._choices["beside"].value)
        second = second if second in others else _NOTHING
        beside.choose(others.get(second))
        self._is_choosing = True
        for name, options, value in (
            ("layer", list(self._views), layer),
            ("direction", directions, direction),
            ("quantity", quantities, quantity),
            ("beside", [_NOTHING, *others], second),
        ):
            self._choices[name].update(options=options, value=value)
            self._choices[name].visible = len(options) > 1 + (name == "beside") or name == "layer"
        self._is_choosing = False

    def _choose(self, attribute: str, old: Any, new: Any) -> None:
        if self._is_choosing:
            return
        names = ("layer", "direction", "quantity")
        self._panels[0].view = View(*(str(self._choices[name].value) for name in names))
        self._offer()
        self._start_over()
        self._write()

    def _choose_lag(self, attribute: str, old: Any, new: Any) -> None:
        if not self._is_choosing:
            self._tabulate()


def _select(name: str) -> Select:
    return Select(
        title=name,
        name="chosen_lag" if name == "lag" else name,  # the curves by lag have that name
        options=[],
        width=220,
        margin=(8, 12, 0, 0),
        visible=False,
        stylesheets=[InlineStyleSheet(css=template_text("live_select.css"))],
    )
