"""The plot that a report opens with: R(k) of all layers, against the lag that was judged."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from throughtime._drawing.palettes import palette
from throughtime._drawing.scale import FLOOR, Scale
from throughtime._drawing.theme import DISTINCT
from throughtime._errors import ThroughTimeError
from throughtime.diagnostics.checks import certified
from throughtime.diagnostics.thresholds import REACHES
from throughtime.picture import Axis, Band, Line, Mark, Panel, Picture
from throughtime.plots.data import layers
from throughtime.plots.profiles import Profile, profiles
from throughtime.plots.recorded import sampled

_MOST_LABELLED, _MOST_TITLED = 8, 3  # layers
_GREY, _LINE = "#666666", "#c0447a"
NOTE = (
    "R(k) is the gradient of a layer's state k steps before the step that the loss reads, as a share of its "
    "size there: median over samples, with its 95 % interval. A curve below the line at 1 % teaches next to "
    "nothing."
)


def measured(tree: xr.DataTree) -> dict[str, Profile]:
    """Measure R(k) of each direction of each layer; those that have none are left out."""
    found = {}
    for path, leaf in layers(tree):
        try:
            curves = profiles(sampled(certified(leaf)))
        except ThroughTimeError:  # a failed certificate, or a layer without gradients
            continue
        for curve in curves:
            if np.isfinite(curve.middle).sum() > 1:
                found[f"{path}[{curve.direction}]" if curve.direction else path] = curve
    return found


def reach_picture(
    curves: Mapping[str, Profile], lag: int | None = None, horizons: Mapping[str, str] | None = None
) -> Picture:
    """Draw R(k) of each layer as a line, with the threshold and the lag that was judged.

    Parameters
    ----------
    curves : mapping of str to Profile
        At least one.
    lag : int or None
        Marked where it is given.
    horizons : mapping of str to str, optional
        Of layers, in steps: the title gives them.
    """
    sizes = np.concatenate([each.middle[np.isfinite(each.middle)] for each in curves.values()])
    smallest = float(sizes[sizes > 0].min(initial=1.0))
    scale = Scale("log10", max(FLOOR, min(REACHES / 10, smallest)), float(sizes.max(initial=1.0)))
    longest = max(1.0, *(float(each.lags[-1]) for each in curves.values()))
    marks: list[Mark] = []
    for (path, curve), color in zip(curves.items(), _colors(len(curves)), strict=True):
        marks += _curve(path if len(curves) <= _MOST_LABELLED else "", curve, color, scale)
    at = float(scale.position(np.array(REACHES)))
    marks.append(Line(np.array([0.0, longest]), np.full(2, at), _LINE, 1.2, dashed=True, label="1 %"))
    if lag is not None and lag <= longest:
        line = np.full(2, float(lag)), np.array([0.0, 1.0])
        marks.append(Line(*line, _GREY, 1.2, dashed=True, label=f"lag {lag}"))
    panel = Panel(
        tuple(marks),
        x=Axis("lag k, in steps back", (0.0, longest)),
        y=Axis("R(k)", (-0.02, 1.03), scale.ticks()),
        grid=True,
    )
    return Picture((panel,), title=_title(horizons or {}), note=NOTE, width=9.0, height=3.4)


def _colors(count: int) -> list[str]:
    if count <= len(DISTINCT):
        return list(DISTINCT[:count])
    found = palette("batlow")
    return [found[int(place)] for place in np.linspace(0, 200, count)]


def _curve(path: str, curve: Profile, color: str, scale: Scale) -> list[Mark]:
    """Draw one layer; below the floor its line ends."""
    is_seen = np.nan_to_num(curve.middle) >= scale.low
    y = np.where(is_seen, scale.curve(curve.middle), np.nan)
    details = (("lag", curve.lags), ("R", curve.middle))
    line = Line(curve.lags, y, color, 2.2, label=path, details=details)
    low, high = (scale.clipped(end)[is_seen] for end in (curve.low, curve.high))
    if (np.isnan(low) | np.isnan(high)).all():
        return [line]
    return [Band(curve.lags[is_seen], low, high, color, 0.18), line]


def _title(horizons: Mapping[str, str]) -> str:
    """Say how far back 1 % of the gradient arrives, in the layers with the shortest and the longest way."""
    ordered = sorted(horizons, key=lambda path: float(horizons[path].removeprefix("≥ ")))
    shown = ordered if len(ordered) <= _MOST_TITLED else [ordered[0], ordered[-1]]
    ends = [f"{horizons[path].removeprefix('≥ ')} steps back in {path}" for path in shown]
    return f"At least 1 % of the gradient arrives {', '.join(ends)}" if ends else "Gradient by lag, R(k)"
