"""`lines`: a quantity against time, with a panel for each unit; many panels are drawn as one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Unpack

import numpy as np
import xarray as xr

from throughtime._errors import PictureError
from throughtime._inputs import takes
from throughtime._inputs.rules import choice
from throughtime.diagnostics.statistics import quantiles
from throughtime.picture import Axis, Band, Line, Mark, Panel, Picture
from throughtime.picture._drawing.scale import Array, Scale, number
from throughtime.picture._drawing.theme import DISTINCT
from throughtime.plots.axes import edges_across, labels, time_axis
from throughtime.plots.cells import (
    MOST_NAMES,
    Grid,
    borders,
    column_ticks,
    details,
    floor_line,
    grid_of,
    names,
    row_ticks,
)
from throughtime.plots.colored import Fitted, fitted, own_scale
from throughtime.plots.data import (
    Captured,
    Source,
    count,
    dim_called,
    dotted,
    only_valid,
    parts,
    read,
    title,
    unit_dim,
)
from throughtime.plots.look import Look, checked, finished
from throughtime.plots.sentences import of_quantity

FEW_SAMPLES = 4
SPREADS = ("lines", "band")
BAND = (0.1, 0.5, 0.9)
Curves = Callable[[Array, Grid, Scale, list[str]], list[Mark]]


@takes(PictureError, spread=choice(*SPREADS))
def lines(
    captured: Captured,
    quantity: str = "hidden_gradient",
    *,
    panels: str = "unit",
    spread: str | None = None,
    columns: int | None = None,
    **look: Unpack[Look],
) -> Picture:
    """Draw a quantity against time, with a panel for each unit; thousands take as long as a few.

    Up to 4 samples are separate lines; more are a median with a band from the 10 % to the 90 % quantile.
    Directions and gates have separate panels. All panels share one scale.

    Parameters
    ----------
    captured : capture with one layer, a layer, or DataArray
    quantity : str
        Variable to draw. Ignored if `captured` is a DataArray.
    panels : str
        Dim whose entries have a panel each. A quantity without units has one panel.
    spread : "lines" or "band", optional
        Samples as lines, or as median and band.
    columns : int, optional
        Panels per row.
    **look
        See `tt.plots.Look`: limits, share, scale, cmap, title, width, height.

    Examples
    --------
    >>> from throughtime import testing
    >>> picture = lines(testing.decaying(samples=2, units=256))
    >>> len(picture.panels), len(picture.panels[0].marks[1].x)  # 256 panels of 50 steps, one line a sample
    (1, 13056)
    """
    look = checked(look)
    source = read(captured, quantity).latest()
    dim_called(source.values, "time", "the horizontal axis")
    dim = _panel_dim(source.values, panels)
    values = only_valid(source)
    if look.get("share") is False:
        axes = tuple(values.get_axis_num(each) for each in ("sample", "time") if each in values.dims)
        values = values.copy(data=own_scale(values.values, axes))
    fit = fitted(source, values.values, look)
    grid = grid_of(values.sizes[dim] if dim else 1, columns, values.sizes["time"])
    kept = [each for each in ("sample", dim, "time") if each]
    samples = values.sizes.get("sample", 1)
    is_band = spread == "band" or (spread is None and samples > FEW_SAMPLES)
    curves_of = _band if is_band else _samples
    drawn = tuple(_panel(part, kept, name, grid, fit, curves_of) for name, part in parts(values, [*kept]))
    if grid.is_one:
        cuts = edges_across(source.edges, grid.steps)
        drawn = tuple(replace(panel, marks=(*panel.marks, *cuts)) for panel in drawn)
    picture = Picture(drawn, note=_note(samples, is_band), linked="xy")
    size = 11.0 if grid.count > 1 else 8.0, _height(grid, len(drawn))
    return finished(picture, look, (of_quantity(source), _title(source, values, fit, dim)), size)


def _panel_dim(values: xr.DataArray, panels: str) -> str | None:
    if panels == "unit" and unit_dim(values) is None:
        return None
    return dim_called(values, panels, "panels")


def _panel(
    part: xr.DataArray, kept: list[str], name: str, grid: Grid, fit: Fitted, curves_of: Curves
) -> Panel:
    ordered = part if "sample" in part.dims else part.expand_dims("sample")
    cells = ordered.transpose("sample", *(dim for dim in kept if dim != "sample")).values
    cells = cells.reshape(len(cells), grid.count, grid.steps)
    words = labels(part, str(kept[-2])) if grid.count > 1 else []
    curves = curves_of(cells, grid, fit.scale, words)
    floor = [floor_line(grid)] if fit.scale.kind == "log10" else []
    if grid.is_one:
        return Panel(
            (*floor, *curves),
            title=name,
            x=time_axis(part, grid.steps),
            y=Axis(fit.label, (-0.04, 1.06), fit.scale.ticks()),
            grid=True,
        )
    # The vertical axis is that of the quantity, or it counts the panels.
    beside = (
        fit.label if grid.count <= MOST_NAMES else f"{str(kept[-2]).replace('_', ' ')}, first of each row"
    )
    return Panel(
        (*floor, *curves, *borders(grid), *names(grid, words, str(kept[-2]))),
        title=dotted(name, _span(fit.scale)),
        x=Axis(f"each panel: timesteps 0 to {grid.steps - 1}", (0, grid.columns), column_ticks(grid)),
        y=Axis(beside, (0, grid.rows), row_ticks(grid, fit.scale, words)),
        framed=False,
    )


def _samples(cells: Array, grid: Grid, scale: Scale, words: list[str]) -> list[Mark]:
    x, few = grid.x(), len(cells) <= FEW_SAMPLES
    return [
        Line(
            x,
            grid.y(scale.curve(values)),
            color=DISTINCT[place] if few else DISTINCT[0],
            width=1.2 if few else 0.7,
            alpha=0.95 if few else 0.4,
            label=f"sample {place}" if few and len(cells) > 1 and grid.is_one else "",
            details=details(grid, values, words),
        )
        for place, values in enumerate(cells)
    ]


def _band(cells: Array, grid: Grid, scale: Scale, words: list[str]) -> list[Mark]:
    finite = np.where(np.isfinite(cells), cells, np.nan)
    shown = np.abs(finite) if scale.kind == "log10" else finite
    low, middle, high = quantiles(shown, BAND)
    x = grid.x()
    detail = (
        ("10 % to 90 % of the samples", f"median of {count(len(cells), 'sample')}")
        if grid.is_one
        else ("", "")
    )
    lower, upper, line = grid.y(scale.clipped(low)), grid.y(scale.curve(high)), grid.y(scale.curve(middle))
    return [
        Band(x, lower, upper, color="#56B4E9", alpha=0.4, label=detail[0]),
        Line(x, line, color="#003f6b", width=1.1, label=detail[1], details=details(grid, middle, words)),
    ]


def _span(scale: Scale) -> str:
    low = -scale.high if scale.kind == "signed_log" else scale.low
    return scale.label(f"{number(low)} to {number(scale.high)}")


def _height(grid: Grid, parts: int) -> float:
    if grid.is_one:
        return min(1.0 + 2.6 * parts, 14.0)
    return min(0.9 + parts * (0.4 + grid.rows * max(0.45, 1.4 - 0.1 * grid.columns)), 18.0)


def _title(source: Source, values: xr.DataArray, fit: Fitted, dim: str | None) -> str:
    parts = [count(values.sizes["sample"], "sample")] if "sample" in values.dims else []
    if dim:
        parts.append(count(values.sizes[dim], dim.replace("_", " ")))
    broken = int((~np.isfinite(source.values.values)).sum())
    outside = _outside(values.values, fit)
    parts += [f"{broken} NaN or ∞ not drawn"] if broken else []
    parts += [f"{outside} clipped"] if outside else []
    symbol = source.symbol_on(fit.scale)
    return title(source, *parts, symbol=symbol)


def _outside(values: Array, fit: Fitted) -> int:
    """Count the values beyond limits that the caller gave."""
    if not fit.limited:
        return 0
    position = fit.scale.position(values)
    return int((np.isfinite(values) & ((position < 0) | (position > 1))).sum())


def _note(samples: int, is_band: bool) -> str:
    what = (
        "The line is the median over samples, the band holds the middle 80 % of them"
        if is_band
        else ("One line for each sample" if samples > 1 else "One line, one sample")
    )
    return f"{what}; it ends where a sequence ends."
