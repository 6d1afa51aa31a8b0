"""Time × training step as an image, one row per record."""

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
)
from bokeh.models.annotations import ColorBar

from throughtime._pages.live.figures import Window, empty_figure
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
        self.bar = _color_bar(self.mapper, theme)
        made.add_layout(self.bar, "right")
        self.clear()

    def clear(self) -> None:
        """Draw nothing."""
        self.source.data = _image(np.full((MOST_ROWS, 1), np.nan, np.float32), 1)
        self._ticker.ticks = []

    def draw(self, steps: npt.NDArray[np.int64], curves: Floats, losses: Floats) -> None:
        """Draw records, at most `MOST_ROWS`: their training steps, (record, time), (record)."""
        if not curves.size:
            return
        logs = _logs(curves, losses)
        image = np.full((MOST_ROWS, logs.shape[1]), np.nan, np.float32)
        image[: len(logs)] = logs
        self.source.data = _image(image, curves.shape[-1])
        self._window.fit((-0.5, curves.shape[-1] - 0.5), (len(steps) - 0.5, -0.5))
        self._ticker.ticks = ticks = list(range(0, len(steps), -(-len(steps) // 8)))
        self.rows.data = {"step": steps.tolist()}
        self.figure.yaxis.major_label_overrides = {tick: f"{steps[tick]:,}" for tick in ticks}
        largest = largest_magnitude(curves)
        if largest > 0:
            scale = scale_for(10.0 ** logs[(logs > _BELOW) & (logs < _BROKEN)], "log10")
            high = float(np.log10(largest))
            low = min(high - 1, float(np.log10(scale.low)))
            self.mapper.update(low=low - _ROUNDING, high=high + _ROUNDING)


def _image(values: npt.NDArray[np.float32], length: int) -> dict[str, list[Any]]:
    return {"image": [values], "dw": [length]}


def _logs(curves: Floats, losses: Floats) -> Floats:
    """Return logarithms of records; a step that was NaN in all so far is masked if the loss is finite."""
    curves = pooled(curves, len(curves), MOST_COLUMNS)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(curves > 0, np.log10(curves), _BELOW)
    never = ~np.logical_or.accumulate(~np.isnan(curves), axis=0)
    broken = ~np.isfinite(curves) & ~(never & np.isfinite(losses)[:, None])
    return np.where(broken, _BROKEN, np.where(np.isnan(curves), np.nan, logs))


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
