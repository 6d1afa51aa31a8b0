"""The plot that a report opens with: R(k) of all layers, against the lag that was judged."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from throughtime._drawing.scale import FLOOR, Scale
from throughtime._drawing.theme import DISTINCT
from throughtime.diagnostics.thresholds import REACHES
from throughtime.picture import Axis, Band, Line, Mark, Panel, Picture
from throughtime.plots.palettes import palette

_MOST_LABELLED, _MOST_TITLED = 8, 3  # layers
_GREY, _LINE = "#666666", "#c0447a"
NOTE = (
    "R(k) is the gradient of a layer's state k steps before the step that the loss reads, as a share of its "
    "size there: median over samples, with its 95 % interval. A curve below the line at 1 % teaches next to "
    "nothing."
)


def reach_picture(
    profiles: Mapping[str, xr.Dataset], lag: int | None, horizons: Mapping[str, str] | None = None
) -> Picture:
    """Draw R(k) of each layer as a line, with the threshold and the lag that was judged.

    Parameters
    ----------
    profiles : mapping of str to Dataset (lag)
        With `ratio`, `low` and `high`; at least one.
    lag : int or None
        Marked where it is given.
    horizons : mapping of str to str, optional
        Of layers, in steps: the title gives them.
    """
    largest = max(float(each["ratio"].max()) for each in profiles.values())
    smallest = min(_smallest(each["ratio"]) for each in profiles.values())
    scale = Scale("log10", max(FLOOR, min(REACHES / 10, smallest)), max(1.0, largest))
    longest = max(float(each["lag"].max()) for each in profiles.values())
    marks: list[Mark] = []
    for (path, profile), color in zip(profiles.items(), _colors(len(profiles)), strict=True):
        marks += _curve(path if len(profiles) <= _MOST_LABELLED else "", profile, color, scale)
    at = float(scale.position(np.array(REACHES)))
    marks.append(Line(np.array([0.0, longest]), np.full(2, at), _LINE, 1.2, dashed=True, label="1 %"))
    if lag is not None and lag <= longest:
        line = np.array([float(lag), float(lag)]), np.array([0.0, 1.0])
        marks.append(Line(*line, _GREY, 1.2, dashed=True, label=f"lag {lag}"))
    panel = Panel(
        tuple(marks),
        x=Axis("lag k, in steps back", (0.0, max(1.0, longest))),
        y=Axis("R(k)", (-0.02, 1.03), scale.ticks()),
        grid=True,
    )
    return Picture((panel,), title=_title(horizons or {}), note=NOTE, width=9.0, height=3.4)


def _smallest(ratio: xr.DataArray) -> float:
    sizes = ratio.values[np.isfinite(ratio.values) & (ratio.values > 0)]
    return float(sizes.min(initial=1.0))


def _colors(count: int) -> list[str]:
    if count <= len(DISTINCT):
        return list(DISTINCT[:count])
    found = palette("batlow")
    return [found[int(place)] for place in np.linspace(0, 200, count)]


def _curve(path: str, profile: xr.Dataset, color: str, scale: Scale) -> list[Mark]:
    """Draw one layer; below the floor its line ends."""
    lags, ratio = profile["lag"].values.astype(float), profile["ratio"].values
    is_seen = np.nan_to_num(ratio) >= scale.low
    y = np.where(is_seen, scale.curve(ratio), np.nan)
    details = (("lag", lags), ("R", ratio))
    marks: list[Mark] = [Line(lags, y, color, 2.2, label=path, details=details)]
    low, high = (scale.clipped(profile[end].values) for end in ("low", "high"))
    if not (np.isnan(low) | np.isnan(high))[is_seen].all():
        marks.insert(0, Band(lags[is_seen], low[is_seen], high[is_seen], color, 0.18))
    return marks


def _title(horizons: Mapping[str, str]) -> str:
    """Say how far back 1 % of the gradient arrives, in the layers with the shortest and the longest way."""
    ordered = sorted(horizons, key=lambda path: float(horizons[path].removeprefix("≥ ")))
    shown = ordered if len(ordered) <= _MOST_TITLED else [ordered[0], ordered[-1]]
    ends = [f"{horizons[path]} steps back in {path}" for path in shown]
    return (
        f"At least 1 % of the gradient arrives up to {', '.join(ends)}" if ends else "Gradient by lag, R(k)"
    )
