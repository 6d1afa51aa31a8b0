"""`evolution`: how a quantity over time changes while the model trains."""

from __future__ import annotations

from dataclasses import replace
from typing import Unpack

import numpy as np
import xarray as xr

from throughtime._errors import PictureError
from throughtime._inputs import takes
from throughtime._tree import layer as one_layer
from throughtime._tree import states
from throughtime.diagnostics.statistics import quantiles
from throughtime.picture import Axis, Panel, Picture
from throughtime.picture._drawing.colors import Colors
from throughtime.picture._drawing.scale import FLOOR
from throughtime.plots.axes import labels, thinned, time_axis
from throughtime.plots.colored import colors, own_scale
from throughtime.plots.curves import norms, whole_image
from throughtime.plots.data import (
    Captured,
    Source,
    count,
    norm_symbol,
    only_valid,
    parts,
    read,
    subject,
    title,
    unit_dim,
)
from throughtime.plots.look import Look, checked, in_columns
from throughtime.plots.sentences import change, sentence

_LAGS, _OF_LAGS = "lag_ratio", "R(k)"
_BYTES_AT_ONCE = 2**24
PEAK = 10  # times the first and the last record: the title names its training step
NOTE = (
    "A row is one recorded training step, the first at the top, a column {column}. All rows have the same "
    "height, however many steps lie between two records."
)
_COLUMN = {"time": "a timestep of the input", "lag": "a number of steps back"}


@takes(PictureError)
def evolution(run: Captured, quantity: str = "hidden_gradient", **look: Unpack[Look]) -> Picture:
    """Draw time × training step of a stored run: the norm over units, the median over samples.

    Parameters
    ----------
    run : capture with one layer, a layer, or DataArray, with a dim `step`
        Several captures become one with `xarray.concat(leaves, dim="step")`. A run from disk is read a few
        steps at a time, so that it may be larger than memory.
    quantity : str
        A variable with time, or `lag_ratio`; for a run that keeps norms, its `…_norm` is drawn. Ignored if
        `run` is a DataArray.
    **look
        See `tt.plots.Look`: limits, scale, cmap, title, width, height; with `share=False` each row is divided
        by its largest magnitude.

    Raises
    ------
    PictureError
        There is no dim `step`, or neither `time` nor `lag`.

    Examples
    --------
    >>> import xarray as xr
    >>> from throughtime import testing
    >>> leaves = [testing.decaying(rate)["rnn"].to_dataset() for rate in (0.3, 0.6, 0.9)]
    >>> picture = evolution(xr.concat(leaves, dim=xr.DataArray([0, 10, 200], dims="step", name="step")))
    >>> picture.panels[0].marks[0].values.shape  # 3 records of 50 timesteps
    (3, 50)
    """
    look = checked(look)
    source = _source(run, quantity)
    along = "lag" if "lag" in source.values.dims else "time"
    missing = [dim for dim in ("step", along) if dim not in source.values.dims]
    if missing:
        raise PictureError(
            f"{source.name} has no axis {missing[0]!r}. evolution draws a run over training steps; several "
            "captures become one with xarray.concat(leaves, dim='step')."
        )
    shown = _median(source)
    if look.get("share") is False:
        shown = shown.copy(data=own_scale(shown.values, (shown.get_axis_num(along),)))
    symbol = source.norm if unit_dim(source.values) else source.symbol
    summed = Source(shown, None, source.name, symbol, source.where)
    fit = colors(summed, shown.values, look)
    panels = tuple(_panel(part, name, fit) for name, part in parts(shown, ["step", along]))
    detail = [count(int(shown.sizes["step"]), "training step")]
    if "sample" in source.values.dims:
        detail.append(f"median over {count(int(source.values.sizes['sample']), 'sample')}")
    elif "quantile" in source.values.dims or source.name == _LAGS:
        detail.append("median over samples")
    picture = Picture(panels, note=NOTE.format(column=_COLUMN[along]), linked="xy")
    return in_columns(picture, look, (_changed(shown, summed, along), title(summed, *detail)), 4.4)


def _changed(shown: xr.DataArray, source: Source, along: str) -> str:
    """Compare the first and the last record at the far end of time or of the lags."""
    found = []
    for direction, part in parts(shown, ["step", along]):
        rows, steps = part.transpose("step", along).values, labels(part, "step")
        lost = (np.isfinite(rows[0]) & ~np.isfinite(rows)).any(axis=1)
        if lost.any():
            found.append((direction, f"is NaN or infinite, first at training step {steps[lost.argmax()]}"))
            continue
        known = np.flatnonzero((np.isfinite(rows[[0, -1]]) & (rows[[0, -1]] > 0)).all(axis=0))
        if not known.size or len(rows) < 2:
            continue
        far = int(known[0] if along == "time" and direction != "backward" else known[-1])
        place = f"at timestep {far}" if along == "time" else f"at lag {far}"
        ends = float(rows[0, far]), float(rows[-1, far])
        peak = int(np.nanargmax(rows[:, far]))
        is_seen = rows[peak, far] >= FLOOR * rows[np.isfinite(rows)].max()
        words = f"{change(*ends) if is_seen else 'stays below the numerical floor'} {place}"
        if is_seen and rows[peak, far] > PEAK * max(ends):
            words += f", with its peak at training step {steps[peak]}"
        found.append((direction, words))
    what = "Gradient" if source.name == _LAGS else source.noun.capitalize()
    return sentence(subject(source.where, what), found)


def _source(run: Captured, quantity: str) -> Source:
    """Read a quantity, or its norm if the run keeps only that."""
    if isinstance(run, xr.DataArray):
        return read(run)
    leaf, norms = one_layer(run), f"{quantity}_norm"
    if quantity == _LAGS:
        return replace(read(run, quantity), symbol=_OF_LAGS)
    if quantity in leaf or norms not in leaf:
        return read(run, quantity)
    return replace(read(run, norms), symbol=norm_symbol(quantity, states(leaf)))


def _median(source: Source) -> xr.DataArray:
    """Return the median over samples of the norm over units; from disk a few steps at a time."""
    if source.values.chunks is None:
        return _median_of(source)
    total = int(source.values.sizes["step"])
    together = max(1, int(_BYTES_AT_ONCE * total // max(1, source.values.nbytes)))
    places = [np.arange(start, min(start + together, total)) for start in range(0, total, together)]
    return xr.concat([_median_of(_loaded(source.at(step=each))) for each in places], "step")


def _loaded(source: Source) -> Source:
    valid = None if source.valid is None else source.valid.load()
    return replace(source, values=source.values.load(), valid=valid)


def _median_of(source: Source) -> xr.DataArray:
    """Return the median over samples of the norm over units; masked steps do not count."""
    if "quantile" in source.values.dims:
        return source.values.sel(quantile=0.5, drop=True).astype(np.float64)
    values = only_valid(source).astype(np.float64)
    if unit := unit_dim(values):
        values = norms(values, [str(dim) for dim in values.dims if dim != unit])
    if "sample" not in values.dims:
        return values
    axis = values.get_axis_num("sample")
    (middle,) = quantiles(values.values, (0.5,), axis)
    return values.isel(sample=0, drop=True).copy(data=middle)


def _panel(part: xr.DataArray, name: str, fit: Colors) -> Panel:
    values, steps = (
        part.transpose("step", "lag" if "lag" in part.dims else "time").values,
        labels(part, "step"),
    )
    image, ticks = whole_image(values, fit, rows=np.array(steps, dtype=object)), thinned(steps, 10)
    return Panel(
        (image,),
        title=name,
        x=Axis("lag, steps back", image.x) if "lag" in part.dims else time_axis(part, part.sizes["time"]),
        y=Axis("training step", image.y, ticks, reversed=True),
    )
