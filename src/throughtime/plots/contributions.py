"""`contributions`: which timesteps move the recurrent weights."""

from __future__ import annotations

from typing import Unpack

import numpy as np
import xarray as xr

from throughtime._errors import PictureError
from throughtime._inputs import takes
from throughtime._tree import Layer
from throughtime.diagnostics.checks import certified
from throughtime.diagnostics.statistics import quantiles
from throughtime.picture import Axis, Panel, Picture
from throughtime.picture._drawing.colors import Colors
from throughtime.picture._drawing.scale import Array
from throughtime.picture._drawing.theme import DISTINCT
from throughtime.plots.axes import ticks_along, time_axis
from throughtime.plots.colored import colors
from throughtime.plots.curves import median_band, whole_image
from throughtime.plots.data import (
    Source,
    count,
    dotted,
    located,
    norm_symbol,
    only_valid,
    parts,
    read,
    required,
    subject,
    valid_for,
    where,
)
from throughtime.plots.look import Look, checked, finished
from throughtime.plots.recorded import band, is_summary, sampled
from throughtime.plots.sentences import SHARE, percent, sentence, undrawn, within

QUANTITY = "step_contribution"
NOTE = (
    "Above: the contribution of each step to the gradient of the recurrent kernel, a row for each sample. "
    "Below: its share of the sample's total. A contribution is the gradient at a step times the state "
    "before it, so that weights may learn most where the gradient is not largest. These are norms; the "
    "contributions themselves may cancel in the sum. The first step has no state before it and adds 0."
)
NOTE_OF_SUMMARY = (
    "The norm of each step's contribution to the gradient of the recurrent kernel; the contributions "
    "themselves may cancel in the sum. The share of each sample's total needs samples: quantities='timestep' "
    "records them."
)


@takes(PictureError)
def contributions(captured: Layer, **look: Unpack[Look]) -> Picture:
    """Draw the norm of each step's contribution to the recurrent kernel's gradient, and its share.

    Parameters
    ----------
    captured : capture or run with one layer, or a layer, with `step_contribution`
        A run that keeps a summary has norms by quantile, without shares.
    **look
        See `tt.plots.Look`: limits, scale, cmap, title, width, height.

    Raises
    ------
    DiagnosticError
        The certificate of the layer is above its bar, or an argument is not as described above.

    Examples
    --------
    >>> from throughtime import testing
    >>> from throughtime.picture import Line
    >>> picture = contributions(testing.decaying(rate=0.5, samples=2))
    >>> dict(picture.panels[1].of(Line)[0].details)["share"][-2:].round(3)
    array([0.25, 0.5 ])
    """
    look = checked(look, without=("share",))
    layer = sampled(certified(captured))
    if is_summary(layer) and f"{QUANTITY}_norm" in layer:
        return _of_summary(captured, layer, look)
    required(layer, QUANTITY)
    source = read(layer, QUANTITY)
    fit = colors(source, only_valid(source).values, look)
    panels: list[Panel] = []
    found: list[tuple[str, str]] = []
    for name, part in parts(source.values, ["sample", "time"]):
        valid = only_valid(source.with_values(part)).transpose("sample", "time")
        found.append((name, within(np.asarray(valid.values, np.float64))))
        panels += [_image(source.with_values(part), name, fit), _shares(source.with_values(part), name)]
    samples = count(int(source.values.sizes["sample"]), "sample")
    noun = dotted(f"step contributions {source.symbol}", located(captured, layer), samples, undrawn(source))
    taught = f"{percent(SHARE)} of the {subject(where(captured), 'step contribution')}"
    picture = Picture(tuple(panels), note=NOTE, linked="x")
    return finished(picture, look, (sentence(taught, found), noun), (9.0, 0.8 + 2.3 * len(panels)))


def _of_summary(captured: Layer, layer: xr.Dataset, look: Look) -> Picture:
    """Draw the quantiles over samples that a summary keeps, with a panel for each direction."""
    norms = layer[f"{QUANTITY}_norm"]
    words = ("5 % to 95 %", "norm of the contribution", "norm")
    panels = [_spread(part, band(part), name, words) for name, part in parts(norms, ["quantile", "time"])]
    symbol = read(layer, f"{QUANTITY}_norm").with_values(norms, norm_symbol(QUANTITY)).symbol
    noun = dotted(f"step contributions {symbol}", located(captured, layer), "median over samples")
    picture = Picture(tuple(panels), note=NOTE_OF_SUMMARY, linked="x")
    return finished(picture, look, ("", noun), (9.0, 0.8 + 2.6 * len(panels)))


def _spread(
    values: xr.DataArray, ends: tuple[Array, Array, Array], title: str, words: tuple[str, str, str]
) -> Panel:
    """Draw a median and its band; the words name the band, the axis and the value of a point."""
    share, label, name = words
    marks = median_band(
        ends, DISTINCT[0], labels=(f"{share} of the samples", "median over samples"), name=name
    )
    top = float(np.max(ends[2], where=np.isfinite(ends[2]), initial=0.0)) or 1.0
    x = time_axis(values, values.sizes["time"])
    return Panel(tuple(marks), title=title, x=x, y=Axis(label, (0.0, 1.08 * top)), grid=True)


def _image(source: Source, name: str, fit: Colors) -> Panel:
    values = source.values.transpose("sample", "time").values
    image = whole_image(values, fit, valid_for(source, ("sample", "time")))
    down = Axis("sample", image.y, ticks_along(source.values, "sample"), reversed=True)
    return Panel((image,), title=name, x=time_axis(source.values, values.shape[1]), y=down)


def _shares(source: Source, name: str) -> Panel:
    values = only_valid(source).transpose("sample", "time").values.astype(np.float64)
    totals = np.where(np.isfinite(values), values, 0.0).sum(axis=1, keepdims=True)
    low, middle, high = quantiles(values / np.where(totals > 0, totals, np.nan), (0.1, 0.5, 0.9))
    words = ("10 % to 90 %", "share of the total", "share")
    return _spread(source.values, (low, middle, high), name, words)
