"""`lag_profile`: how much of the error signal is left k steps back, with its uncertainty over samples."""

from __future__ import annotations

from typing import Unpack

import numpy as np
import xarray as xr

from throughtime._arguments import takes
from throughtime._arguments.rules import number
from throughtime._drawing.scale import FLOOR, Array, Scale
from throughtime._drawing.theme import DISTINCT
from throughtime._errors import PictureError
from throughtime._tree import Layer
from throughtime.diagnostics import lag_profile as measured
from throughtime.diagnostics.checks import certified
from throughtime.diagnostics.lags import signals
from throughtime.picture import Axis, Band, Line, Mark, Panel, Picture
from throughtime.plots.data import count, located, parts
from throughtime.plots.look import Look, checked, size
from throughtime.plots.recorded import is_summary, sampled

MOST_CURVES = 100
NOTE = (
    "R(k) is the gradient of the state k steps before the loss, divided by its value at lag 0. Grey: a line "
    "a sample. Where the median falls below the threshold, the error has lost 99 % of its size."
)


@takes(PictureError, threshold=number(0, 1, inside=True))
def lag_profile(captured: Layer, *, threshold: float = 0.01, **look: Unpack[Look]) -> Picture:
    """Draw R(k), the error signal k steps back as a fraction of lag 0, with a bootstrap band.

    Parameters
    ----------
    captured : capture or run with one layer, or a layer
        With `hidden_gradient` (an LSTM: `cell_gradient` too) or `lag_matrix`. A run that keeps a summary has
        the median only.
    threshold : float in (0, 1)
        Drawn as a line, as is 2⁻²⁴, below which a float32 sum does not change.
    **look
        See `tt.plots.Look`: limits, title, width, height.

    Returns
    -------
    Picture

    Raises
    ------
    SchemaError, DiagnosticError
        As `tt.diagnostics.lag_profile`.
    PictureError
        An argument is not as described above.

    Examples
    --------
    >>> from throughtime import testing
    >>> picture = lag_profile(testing.decaying([0.5, 0.6, 0.7]))
    >>> median = next(mark for mark in picture.panels[0].of(Line) if mark.label.startswith("median"))
    >>> dict(median.details)["R"][:3]
    array([1.  , 0.6 , 0.36])
    """
    look = checked(look, without=("share", "scale", "cmap"))
    layer = sampled(certified(captured))
    profile, ratios = _of_summary(layer) if is_summary(layer) else _of_samples(layer)
    scale = _scale(ratios.values, threshold, look)
    names = [name for name, _ in parts(profile["ratio"], ["lag"])]
    panels = tuple(_panel(profile, ratios, name, scale, threshold) for name in names)
    samples = (
        count(int(ratios.sizes["sample"]), "sample") if "sample" in ratios.dims else "median over samples"
    )
    title = look.get("title") or " · ".join(
        filter(None, ("lag profile R(k)", located(captured, layer), samples))
    )
    return Picture(
        panels,
        columns=min(2, len(panels)),
        title=title,
        note=NOTE,
        linked="xy",
        **size(look, 8.0 if len(panels) == 1 else 11.0, 4.2),
    )


def _of_samples(layer: xr.Dataset) -> tuple[xr.Dataset, xr.DataArray]:
    """Measure the profile, and the ratio of each sample."""
    logs = signals(layer)["log_ratio"]
    return measured(layer), logs.copy(data=np.exp(np.minimum(logs.values, 700.0)))


def _of_summary(layer: xr.Dataset) -> tuple[xr.Dataset, xr.DataArray]:
    """Take the median that a summary keeps, and its interval where it keeps one."""
    ratio = layer["lag_ratio"].assign_coords(lag=np.arange(layer.sizes["lag"]))
    ends = {end: layer.get(f"lag_ratio_{end}", xr.full_like(ratio, np.nan)) for end in ("low", "high")}
    return xr.Dataset({"ratio": ratio, **ends}), ratio


def _scale(ratios: Array, threshold: float, look: Look) -> Scale:
    if (limits := look.get("limits")) is not None:
        return Scale("log10", *map(float, limits))
    finite = ratios[np.isfinite(ratios) & (ratios > 0)]
    lowest = min(threshold / 4, float(finite.min(initial=1.0)) / 2)
    return Scale("log10", max(FLOOR / 4, lowest), float(finite.max(initial=1.0)))


def _panel(profile: xr.Dataset, ratios: xr.DataArray, name: str, scale: Scale, threshold: float) -> Panel:
    chosen = {"direction": name} if "direction" in profile.dims else {}
    part, each = profile.sel(chosen), ratios.sel(chosen)
    lags = part["lag"].values.astype(float)
    marks: list[Mark] = [*_samples(each, lags, scale)]
    if not np.isnan(part["low"].values).all():
        low, high = scale.clipped(part["low"].values), scale.curve(part["high"].values)
        marks.append(Band(lags, low, high, DISTINCT[0], 0.3, label="95 % interval of the median"))
    middle = part["ratio"].values
    of = f"of {count(int(part['samples'].max()), 'sample')}" if "samples" in part else "over samples"
    details = (("lag", lags), ("R", middle))
    marks.append(Line(lags, scale.curve(middle), DISTINCT[0], 2.0, label=f"median {of}", details=details))
    ends = np.array([0.0, max(1.0, lags[-1])])
    for value, color, word in (
        (threshold, DISTINCT[1], f"threshold {threshold:g}"),
        (FLOOR, "#c0447a", "2⁻²⁴, the precision of float32"),
    ):
        at = float(scale.position(np.array(value)))
        if 0 < at < 1:
            marks.append(Line(ends, np.full(2, at), color, 1.0, dashed=True, label=word))
    return Panel(
        tuple(marks),
        title=name,
        x=Axis("lag: valid steps before the last one", (-0.5, ends[1] + 0.5)),
        y=Axis("R(k), log scale", (-0.03, 1.05), scale.ticks()),
        grid=True,
    )


def _samples(ratios: xr.DataArray, lags: Array, scale: Scale) -> list[Line]:
    """One line through all samples, with gaps between them."""
    if "sample" not in ratios.dims:
        return []
    values = ratios.transpose("sample", "lag").values[:MOST_CURVES]
    gap = np.full((len(values), 1), np.nan)
    x = np.concatenate([np.broadcast_to(lags, values.shape), gap], axis=1).ravel()
    y = np.concatenate([scale.curve(values), gap], axis=1).ravel()
    return [Line(x, y, "#9a9a9a", 0.6, 0.6)] if len(values) > 1 else []
