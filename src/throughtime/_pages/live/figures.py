"""Figures of numbers against training steps, and the part of its axes that a figure of the page shows."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, HoverTool, Range1d
from bokeh.plotting import figure

from throughtime._pages.live.records import Floats
from throughtime.picture._drawing.theme import DISTINCT, Theme
from throughtime.picture._render.bokeh import dress

HEIGHT = 300
MOST_LOSSES = 20_000
MOST_POINTS = 2_000
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


class Curves:
    """Several numbers of each record against training steps, a line each."""

    def __init__(self, name: str, theme: Theme, label: str, *, is_log: bool = False) -> None:
        self.source = ColumnDataSource({"xs": [], "ys": [], "color": [], "name": []}, name=name)
        self._window, self._is_log = Window((0.0, 1.0), (1e-3, 1.0) if is_log else (0.0, 1.0)), is_log
        axis = {"y_axis_type": "log"} if is_log else {}
        self.figure = empty_figure(f"{name}_figure", theme, self._window, ("training step", label), **axis)
        self.figure.multi_line("xs", "ys", source=self.source, color="color", line_width=2)
        self.figure.grid.visible = True
        self.reset()

    @property
    def names(self) -> list[str]:
        """Names of the lines, in the order of their colours."""
        return list(self._values)

    def reset(self) -> None:
        """Forget all records."""
        self._steps: Floats = np.empty(0)
        self._values: dict[str, Floats] = {}
        self.source.data = {"xs": [], "ys": [], "color": [], "name": []}

    def add(self, steps: Floats, values: Mapping[str, Floats]) -> None:
        """Add records; a line that begins late is missing before."""
        before = len(self._steps)
        self._steps = np.r_[self._steps, steps]
        for name in {**self._values, **values}:
            known = self._values.get(name, np.full(before, np.nan))
            self._values[name] = np.r_[known, values.get(name, np.full(len(steps), np.nan))]
        if len(self._steps) > MOST_POINTS:
            self._steps = self._steps[::2]
            self._values = {name: each[::2] for name, each in self._values.items()}
        if not self._values:
            return
        everything = np.concatenate([*self._values.values()])
        shown = everything[np.isfinite(everything) & ((everything > 0) | (not self._is_log))]
        self.source.data = {
            "xs": [self._steps] * len(self._values),
            "ys": [each.copy() for each in self._values.values()],
            "color": [DISTINCT[place % len(DISTINCT)] for place in range(len(self._values))],
            "name": self.names,
        }
        if shown.size:
            low, high = float(shown.min()), float(shown.max())
            y = (low / 1.5, high * 1.5) if self._is_log else (-0.03, max(1.03, high))
            self._window.fit((float(self._steps[0]), max(float(self._steps[-1]), self._steps[0] + 1.0)), y)


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
        known, new = self.source.data, {"x": steps, "y": losses}
        x, y = (np.r_[np.asarray(known[name], float), new[name]][-MOST_LOSSES:] for name in "xy")
        self.source.data = {"x": x, "y": y}
        finite = y[np.isfinite(y)]
        if finite.size:
            low, high = float(finite.min()), float(finite.max())
            margin = 0.06 * (high - low) or 0.5 * abs(high) or 0.5
            last = max(float(x[-1]), x[0] + 1.0)
            self._window.fit((float(x[0]), last + 0.015 * (last - x[0])), (low - margin, high + margin))
