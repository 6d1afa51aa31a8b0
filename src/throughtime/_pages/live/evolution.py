"""Time × training step as an image that grows by a row with each record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from bokeh.models import (
    BasicTicker,
    ColumnDataSource,
    CustomJSHover,
    CustomJSTickFormatter,
    FixedTicker,
    HoverTool,
    LinearColorMapper,
    PlainText,
)
from bokeh.models.annotations import ColorBar

from throughtime._pages.live.figures import Window, empty_figure
from throughtime._pages.live.kept import Kept
from throughtime._pages.live.records import Floats
from throughtime.picture._drawing.colors import SPECIALS
from throughtime.picture._drawing.palettes import SEQUENTIAL, palette
from throughtime.picture._drawing.pooling import pooled
from throughtime.picture._drawing.scale import largest_magnitude, scale_for
from throughtime.picture._drawing.theme import Theme
from throughtime.picture._render.bokeh import bar_style
from throughtime.picture._render.bokeh_text import template_text

MOST_ROWS, MOST_COLUMNS = 256, 800
_BELOW, _BROKEN = -1e9, 1e9  # stand for 0 and for what is no number, which have no logarithm
_ROUNDING = 1e-4  # of a logarithm in float32, whose largest is on the scale
_ROW = 'return String(rows.data.step[Math.round(special_vars.y)] ?? "")'


class Evolution:
    """Time × training step as an image, one row per record."""

    def __init__(self, theme: Theme, suffix: str = "") -> None:
        name = f"evolution{suffix}"
        self.source = ColumnDataSource(_image(np.empty((1, 1), np.float32), 1), name=name)
        self.mapper = LinearColorMapper(
            palette=list(palette(SEQUENTIAL)),
            low=-7.0,
            high=0.0,
            low_color=SPECIALS["below"],
            high_color=SPECIALS["nan"],
            nan_color="#00000000",
            tags=["magnitude"],  # turned round on a dark page
        )
        self._window = Window((-0.5, 0.5), (0.5, -0.5))
        labels = ("timestep", "training step")
        self.figure = made = empty_figure(f"{name}_figure", theme, self._window, labels)
        box = {"x": -0.5, "y": -0.5, "dw": "dw", "dh": MOST_ROWS}
        drawn = made.image("image", source=self.source, color_mapper=self.mapper, **box)
        self.rows = ColumnDataSource({"step": []}, name=f"{name}_rows")
        made.add_tools(_hover(drawn, self.rows))
        self._ticker = FixedTicker(ticks=[])
        made.yaxis.ticker = self._ticker
        self._bar = _color_bar(self.mapper, theme)
        made.add_layout(self._bar, "right")
        self.reset()

    def relabel(self, label: str | PlainText) -> None:
        """Name the quantity beside the colours."""
        self._bar.title = label

    def reset(self, count: int = 0) -> None:
        """Forget all records; so many are there to be added."""
        self._kept, self._largest = Kept(MOST_ROWS, count), 0.0
        self._steps: list[int] = []
        self._buffer: npt.NDArray[np.float32] = np.empty((MOST_ROWS, 0), np.float32)
        self.source.data = _image(np.full((MOST_ROWS, 1), np.nan, np.float32), 1)
        self._ticker.ticks = []

    @property
    def stride(self) -> int:
        """One record in so many has a row."""
        return self._kept.stride

    def add(self, numbers: Sequence[int], steps: Any, curves: Floats, losses: Floats) -> None:
        """Add records: their numbers among all, their training steps, (record, time), (record)."""
        if not len(numbers) or not curves.shape[-1]:
            return
        columns, known = min(curves.shape[-1], MOST_COLUMNS), len(self._steps)
        is_whole = self._buffer.shape[1] != columns
        if is_whole:
            self._buffer = np.full((MOST_ROWS, columns), np.nan, np.float32)
        for place, number in enumerate(numbers):
            before = self._kept.places
            if not self._kept.add(number):
                continue
            if self._kept.places is not before:
                is_whole = True
                self._halve()
            self._buffer[len(self._steps)] = _row(curves[place], columns, losses[place])
            self._steps.append(int(steps[place]))
        self._fit(curves)
        if is_whole:
            self.source.data = _image(self._buffer.copy(), curves.shape[-1])
        elif len(self._steps) > known:
            rows = slice(known, len(self._steps))
            self.source.patch({"image": [((0, rows, slice(None)), self._buffer[rows].ravel())]})
        self._show_rows(curves.shape[-1])

    def _halve(self) -> None:
        """Keep every second row, from the first on."""
        staying = self._buffer[: len(self._steps) : 2].copy()
        self._buffer[:] = np.nan
        self._buffer[: len(staying)] = staying
        self._steps = self._steps[::2]

    def _fit(self, curves: Floats) -> None:
        self._largest = max(self._largest, largest_magnitude(curves))
        if self._largest > 0:
            logs = self._buffer[(self._buffer > _BELOW) & (self._buffer < _BROKEN)]
            scale = scale_for(10.0 ** logs.astype(np.float64), "log10")
            high = float(np.log10(self._largest))
            low = min(high - 1, float(np.log10(scale.low)))
            self.mapper.update(low=low - _ROUNDING, high=high + _ROUNDING)

    def _show_rows(self, length: int) -> None:
        count = len(self._steps)
        self._window.fit((-0.5, length - 0.5), (max(count, 1) - 0.5, -0.5))
        every = max(1, -(-count // 8))
        ticks = list(range(0, count, every))
        self._ticker.ticks = ticks
        self.rows.data = {"step": list(self._steps)}
        self.figure.yaxis.major_label_overrides = {tick: f"{self._steps[tick]:,}" for tick in ticks}


def _image(values: npt.NDArray[np.float32], length: int) -> dict[str, list[Any]]:
    return {"image": [values], "dw": [length]}


def _row(curve: Floats, columns: int, loss: float) -> Floats:
    """Logarithms of one record. What is missing of a record whose loss is a number was masked."""
    if len(curve) > columns:
        curve = pooled(curve[None], 1, columns)[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(curve > 0, np.log10(curve), _BELOW)
    broken = ~np.isfinite(curve) if not np.isfinite(loss) else np.isinf(curve)
    return np.where(broken, _BROKEN, np.where(np.isnan(curve), np.nan, logs))


def _hover(drawn: Any, rows: ColumnDataSource) -> HoverTool:
    """Show timestep, training step and value under the mouse."""
    formatters: dict[str, Any] = {
        "$x": CustomJSHover(code="return String(Math.round(special_vars.x))"),
        "$y": CustomJSHover(args={"rows": rows}, code=_ROW),
        "@image": CustomJSHover(code=template_text("hover_power.js")),
    }
    tips = [("timestep", "$x{custom}"), ("training step", "$y{custom}"), ("value", "@image{custom}")]
    return HoverTool(renderers=[drawn], tooltips=tips, formatters=formatters)


def _color_bar(mapper: LinearColorMapper, theme: Theme) -> ColorBar:
    return ColorBar(
        color_mapper=mapper,
        ticker=BasicTicker(desired_num_ticks=5, min_interval=1),
        formatter=CustomJSTickFormatter(code=template_text("power.js")),
        **bar_style(theme),
    )
