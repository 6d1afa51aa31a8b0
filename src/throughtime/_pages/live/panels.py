"""The figures of one layer; a page has them once, or twice side by side."""

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from bokeh.models import InlineStyleSheet
from bokeh.models.widgets import Div

from throughtime._common.text.printable import printable
from throughtime._pages.live import words
from throughtime._pages.live.evolution import MOST_ROWS, Evolution
from throughtime._pages.live.figures import Curves
from throughtime._pages.live.profile import MOST_LINES, Profile
from throughtime._pages.live.records import MIDDLE, Floats, Rows, View, read, saturation, stride
from throughtime.diagnosis.summarized import horizon_of
from throughtime.diagnostics.thresholds import REACHES
from throughtime.picture._drawing.theme import Theme
from throughtime.picture._render.bokeh_text import plain, template_text
from throughtime.plots.data import norm_symbol

Records = tuple[list[int], Rows, dict[str, Floats]]  # places among all records, and what is there


class LayerPanels:
    """Figures and a table of one direction of one layer; `suffix` makes their names unique on the page."""

    def __init__(self, theme: Theme, suffix: str = "") -> None:
        self.view: View | None = None
        self.rows: Rows | None = None
        self._norm = Profile(f"norm{suffix}", theme, "timestep", "norm over units")
        self._lag = Profile(f"lag{suffix}", theme, "lag, steps back", "share of lag 0", threshold=REACHES)
        self._evolution = Evolution(theme, suffix)
        self._saturation = Curves(f"saturation{suffix}", theme, "share of gate values at an end")
        self._numbers, self._key = text(f"numbers{suffix}"), text(f"saturation_key{suffix}")
        # places, steps, losses, norms and ratios of the records in the image
        self._drawn: list[npt.NDArray[Any]] = []
        parts = (self._norm, self._lag, self._evolution, self._saturation)
        self.models: list[Any] = [*(part.figure for part in parts), self._numbers, self._key]
        for made in self.models[:4]:
            made.title.text = plain("layer")  # a figure makes no room for a title that comes later

    def choose(self, view: View | None) -> None:
        """Show another layer, direction or quantity, or nothing."""
        self.view = view
        if view is None:
            return
        symbol = printable(norm_symbol(view.quantity))
        self._norm.figure.yaxis.axis_label = plain(f"{symbol}, norm over units")
        self._evolution.bar.title = plain(symbol)
        for made in self.models[:4]:
            made.title.text = plain(view.name)

    def reset(self) -> None:
        """Forget all records."""
        for part in (self._norm, self._lag, self._evolution):
            part.clear()
        self._saturation.reset()
        self.rows, self._drawn = None, []
        self._numbers.text = ""

    def read(self, tree: xr.DataTree, start: int, count: int) -> Records | None:
        """Read the records from a place on: those that an image of `count` records shows, and the last."""
        if self.view is None:
            return None
        places = [each for each in range(0, count, stride(count, MOST_ROWS)) if each >= start]
        places += [count - 1] if count - 1 not in places else []
        return places, read(tree, self.view, places), saturation(tree, self.view, start)

    def is_longer(self, records: Records | None) -> bool:
        """Whether the sequences of these records have another length than those before."""
        return bool(records and self.rows and self.rows.norms.shape[-1] != records[1].norms.shape[-1])

    def add(self, steps: Floats, count: int, records: Records | None) -> None:
        """Draw what was read, the last of `count` records; `steps` are the training steps that are new."""
        if records is None:
            return
        places, rows, gates = records
        self._saturation.add(steps, gates)
        self._key.text = str(words.key(self._saturation.names))
        self.rows = rows
        new = [np.asarray(places), rows.steps, rows.loss, rows.norms[:, MIDDLE], rows.ratios]
        both = zip(self._drawn, new, strict=True)
        joined = [np.concatenate(each) for each in both] if self._drawn else new
        self._drawn = [each[joined[0] % stride(count, MOST_ROWS) == 0] for each in joined]
        numbers, drawn_steps, losses, norms, ratios = self._drawn
        few = numbers % stride(count, MOST_LINES) == 0
        self._norm.draw(drawn_steps[few], norms[few], rows.norms[-1])
        self._lag.draw(drawn_steps[few], ratios[few], rows.ratios[-1])
        self._evolution.draw(drawn_steps, norms, losses)

    def tabulate(self, recorded: int | None, lag: int) -> None:
        """Write the numbers of the last record."""
        if self.rows and self.view:
            _, steps, _, drawn, ratios = self._drawn
            first, norms = (int(steps[0]), horizon_of(ratios[0])), [drawn, self.rows.norms[:, MIDDLE]]
            self._numbers.text = str(
                words.numbers(self.rows, np.concatenate(norms), recorded, self.view, lag, first)
            )


def text(name: str) -> Div:
    """Make an empty text of the page."""
    return Div(
        text="",
        name=name,
        margin=0,
        sizing_mode="stretch_width",
        stylesheets=[InlineStyleSheet(css=template_text("live_text.css"))],
        disable_math=True,
    )
