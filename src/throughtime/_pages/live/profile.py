"""A curve of the last record over those of earlier ones: a norm against time, a signal against lag."""

from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, HoverTool
from bokeh.models.annotations import Span

from throughtime._pages.live.figures import LAST, Window, empty_figure
from throughtime._pages.live.records import MIDDLE, Floats
from throughtime.picture._drawing.scale import FLOOR, largest_magnitude
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
        self.clear()

    def clear(self) -> None:
        """Draw nothing."""
        self.last.data = {"x": [], "y": []}
        self.earlier.data = {"xs": [], "ys": [], "step": [], "alpha": []}
        self.band.data = {"xs": [], "ys": [], "share": []}

    def draw(self, steps: Any, curves: Floats, last: Floats) -> None:
        """Draw records, (record, place), that fade with their age, and the last one, ([quantile,] place)."""
        if not last.shape[-1]:
            return
        middle = last[MIDDLE] if last.ndim == 2 else last
        x = np.arange(len(middle), dtype=float)
        self.earlier.data = {
            "xs": [x] * len(curves),
            "ys": list(_positive(curves)),
            "step": steps.tolist(),
            "alpha": np.linspace(_OLDEST, _NEWEST, len(curves)).tolist(),
        }
        self.last.data = {"x": x, "y": _positive(middle)}
        if last.ndim == 2:
            self.band.data = _bands(x, last)
        self._fit(np.vstack([curves, middle]), last)

    def _fit(self, curves: Floats, last: Floats) -> None:
        """Show all that is drawn, down to what a float32 sum still feels; a reader's zoom stays."""
        sizes = curves[np.isfinite(curves) & (curves > 0)]
        if sizes.size:
            largest = max(largest_magnitude(curves), largest_magnitude(last))
            low = max(float(sizes.min()) / 1.6, largest * FLOOR)
            self._window.fit((0.0, max(1.0, curves.shape[-1] - 1.0)), (low, largest * 1.6))


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
