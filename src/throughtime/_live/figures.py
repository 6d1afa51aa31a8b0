"""Figures that grow: each takes new records and sends the browser only these.

Records are streamed to, or patched into, what is drawn already. Where more come than a figure can hold, every
second one goes, and only then a figure is sent anew.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, HoverTool, Range1d
from bokeh.plotting import figure

from throughtime._drawing.theme import DISTINCT, Theme
from throughtime._live.records import Floats
from throughtime.render.bokeh import dress

HEIGHT = 300
MOST_LOSSES = 20_000
LAST = DISTINCT[0]


class Window:
    """The part of its axes that a figure shows: all that was drawn, until a reader pans or zooms.

    The figure's reset tool brings it back.
    """

    def __init__(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.x, self.y = (Range1d(start=ends[0], end=ends[1]) for ends in (x, y))
        self._fitted = (*x, *y)

    def fit(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        """Show so much."""
        is_followed = (self.x.start, self.x.end, self.y.start, self.y.end) == self._fitted
        self._fitted = (*x, *y)
        for axis, (start, end) in ((self.x, x), (self.y, y)):
            axis.update(reset_start=start, reset_end=end)
            if is_followed:
                axis.update(start=start, end=end)


def empty_figure(name: str, theme: Theme, window: Window, labels: tuple[str, str], **options: Any) -> Any:
    """Make a figure with axes and nothing in it."""
    made = figure(
        name=name,
        height=HEIGHT,
        sizing_mode="stretch_width",
        tools="pan,wheel_zoom,box_zoom,reset,save",
        active_scroll=None,
        x_axis_label=labels[0],
        y_axis_label=labels[1],
        x_range=window.x,
        y_range=window.y,
        **options,
    )
    dress(made, theme)
    made.toolbar.autohide = True
    return made


class Loss:
    """Loss of the watched batch against training steps."""

    def __init__(self, theme: Theme) -> None:
        self.source = ColumnDataSource({"x": [], "y": []}, name="loss")
        self._window = Window((0.0, 1.0), (0.0, 1.0))
        self.figure = empty_figure("loss_figure", theme, self._window, ("training step", "loss"))
        self.figure.line("x", "y", source=self.source, color=LAST, line_width=2)
        dots = self.figure.scatter("x", "y", source=self.source, color=LAST, size=4)
        self.figure.grid.visible = True
        tips = [("training step", "@x"), ("loss", "@y{0.0000}")]
        self.figure.add_tools(HoverTool(renderers=[dots], tooltips=tips, mode="vline"))

    def reset(self) -> None:
        """Forget all records."""
        self.source.data = {"x": [], "y": []}

    def add(self, steps: Any, losses: Floats) -> None:
        """Add records."""
        self.source.stream({"x": steps, "y": losses}, rollover=MOST_LOSSES)
        x, y = (np.asarray(self.source.data[name], float) for name in "xy")
        finite = y[np.isfinite(y)]
        if finite.size:
            low, high = float(finite.min()), float(finite.max())
            margin = 0.06 * (high - low) or 0.5 * abs(high) or 0.5
            last = max(float(x[-1]), x[0] + 1.0)
            self._window.fit((float(x[0]), last + 0.015 * (last - x[0])), (low - margin, high + margin))
