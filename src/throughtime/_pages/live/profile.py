"""A curve of the last record over those of earlier ones: a norm against time, a signal against lag."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, HoverTool
from bokeh.models.annotations import Span

from throughtime._pages.live.figures import LAST, Window, empty_figure
from throughtime._pages.live.kept import Kept
from throughtime._pages.live.records import MIDDLE, Floats
from throughtime.picture._drawing.scale import FLOOR
from throughtime.picture._drawing.theme import Theme
from throughtime.picture._render.keys import runs

MOST_LINES = 24
_EARLIER = "#8e8e99"
_OLDEST, _NEWEST = 0.12, 0.7  # opacity of earlier curves


class Profile:
    """A curve of the last record, with those of earlier ones faint behind it.

    The source `name` has the last curve, `name_earlier` the others.
    """

    def __init__(self, name: str, theme: Theme, x: str, y: str, *, threshold: float | None = None) -> None:
        self.last = ColumnDataSource({"x": [], "y": []}, name=name)
        self.earlier = ColumnDataSource({"xs": [], "ys": [], "step": [], "alpha": []}, name=f"{name}_earlier")
        self.band = ColumnDataSource({"xs": [], "ys": [], "share": []}, name=f"{name}_band")
        self._window = Window((0.0, 1.0), (1e-7, 1.0))
        made = empty_figure(f"{name}_figure", theme, self._window, (x, y), y_axis_type="log")
        self.figure = made
        made.multi_line("xs", "ys", source=self.earlier, color=_EARLIER, alpha="alpha", line_width=1)
        made.patches("xs", "ys", source=self.band, fill_color=LAST, fill_alpha="share", line_color=None)
        last = made.line("x", "y", source=self.last, color=LAST, line_width=2.5)
        made.grid.visible = True
        tips = [(x.partition(",")[0], "@x"), (y.partition(",")[0], "@y{0.000e+0}")]
        made.add_tools(HoverTool(renderers=[last], tooltips=tips, mode="vline"))
        if threshold is not None:
            made.add_layout(
                Span(location=threshold, dimension="width", line_color="#555555", line_dash="dashed")
            )
        self.reset()

    def reset(self, count: int = 0) -> None:
        """Forget all records; so many are there to be added."""
        self._kept, self._shown = Kept(MOST_LINES, count), (np.inf, 0.0)
        self.last.data = {"x": [], "y": []}
        self.earlier.data = {"xs": [], "ys": [], "step": [], "alpha": []}
        self.band.data = {"xs": [], "ys": [], "share": []}

    def add(self, numbers: Sequence[int], steps: Any, curves: Floats) -> None:
        """Add records: their numbers among all, their training steps, (record, [quantile,] place)."""
        if not len(numbers) or not curves.shape[-1]:
            return
        middle = curves[:, MIDDLE] if curves.ndim == 3 else curves
        x = np.arange(middle.shape[-1], dtype=float)
        self._add_earlier(numbers, steps, x, middle)
        drawn = _positive(middle[-1])
        if len(self.last.data["x"]) == len(x):
            self.last.patch({"y": [(slice(0, len(x)), drawn)]})
        else:
            self.last.data = {"x": x, "y": drawn}
        if curves.ndim == 3:
            self.band.data = _bands(x, curves[-1])
        self._fit(middle, curves)

    def _add_earlier(self, numbers: Sequence[int], steps: Any, x: Floats, middle: Floats) -> None:
        before = list(self._kept.places)
        fresh = [place for place, number in enumerate(numbers) if self._kept.add(number)]
        known: dict[str, Any] = {
            "xs": [x for _ in fresh],
            "ys": [_positive(middle[place]) for place in fresh],
        }
        known["step"] = [int(steps[place]) for place in fresh]
        known["alpha"] = [_NEWEST] * len(fresh)
        if before and self._kept.places[: len(before)] == before:
            self.earlier.stream(known)
        else:  # also after a reset: Bokeh 3.10 skips an empty data in front of a stream
            staying = set(self._kept.places)
            keep = [number in staying for number in [*before, *(numbers[place] for place in fresh)]]
            self.earlier.data = {
                name: [*compress([*self.earlier.data[name], *each], keep)] for name, each in known.items()
            }
        self._fade()

    def _fade(self) -> None:
        """Let curves fade with their age."""
        count = len(self.earlier.data["step"])
        alphas = [float(each) for each in np.linspace(_OLDEST, _NEWEST, count)]
        if alphas:
            self.earlier.patch({"alpha": [(slice(0, count), alphas)]})

    def _fit(self, middle: Floats, curves: Floats) -> None:
        """Show all that was drawn, down to what a float32 sum still feels; a reader's zoom stays."""
        sizes = middle[np.isfinite(middle) & (middle > 0)]
        if not sizes.size:
            return
        largest = float(curves.max(initial=0.0, where=np.isfinite(curves)))
        low, high = min(self._shown[0], float(sizes.min())), max(self._shown[1], largest)
        self._shown = low, high
        self._window.fit((0.0, max(1.0, curves.shape[-1] - 1.0)), (max(low / 1.6, high * FLOOR), high * 1.6))


def _positive(values: Floats) -> Floats:
    """Values for a logarithmic axis: 0 lies below everything, what is not finite interrupts the line."""
    return np.where(np.isfinite(values), np.maximum(values, 1e-300), np.nan)


def _bands(x: Floats, quantiles: Floats) -> dict[str, list[Any]]:
    """Areas between the outer and between the inner quantiles, one for each run of steps that count."""
    found: dict[str, list[Any]] = {"xs": [], "ys": [], "share": []}
    for low, high, share in ((0, -1, 0.14), (1, -2, 0.22)):
        below, above = _positive(quantiles[low]), _positive(quantiles[high])
        for start, end in runs(np.isfinite(below) & np.isfinite(above)):
            found["xs"].append(np.r_[x[start:end], x[start:end][::-1]])
            found["ys"].append(np.r_[below[start:end], above[start:end][::-1]])
            found["share"].append(share)
    return found
