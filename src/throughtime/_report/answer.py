"""The plot that a report opens with: R(k) of all layers, against the lag that was judged."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from throughtime._errors import ThroughTimeError
from throughtime.diagnosis.words import number
from throughtime.diagnostics.checks import certified
from throughtime.diagnostics.thresholds import GROWS, REACHES
from throughtime.picture import Picture
from throughtime.plots.data import layers
from throughtime.plots.profiles import LagCurve, profiles, reach_panel
from throughtime.plots.recorded import sampled

_MOST_TITLED = 3  # layers
NOTE = (
    "R(k) is the gradient of a layer's state k steps before the step that the loss reads, as a fraction of "
    "its size there: median over samples, with its 95 % interval. Steps at which a curve is below the "
    "threshold contribute almost nothing to learning."
)


def measured(tree: xr.DataTree) -> dict[str, LagCurve]:
    """Measure R(k) of each direction of each layer that has gradients."""
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
    curves: Mapping[str, LagCurve], lag: int | None = None, horizons: Mapping[str, str] | None = None
) -> Picture:
    """Draw R(k) of each layer, with the threshold and the lag that was judged.

    Parameters
    ----------
    curves : mapping of str to LagCurve
        At least one.
    lag : int or None
        Marked if it is given.
    horizons : mapping of str to str, optional
        Horizons of layers, in steps, for the title; gradients that grow are its subject instead.
    """
    panel = reach_panel(curves, lag=lag)
    return Picture((panel,), title=_grown(curves) or _title(horizons or {}), note=NOTE, width=9.0, height=3.4)


def _grown(curves: Mapping[str, LagCurve]) -> str:
    """Write where the gradient is ten times that at lag 0, or twice if it reaches all lags; else empty."""
    largest = {path: float(np.nanmax(curve.middle)) for path, curve in curves.items()}
    path = max(largest, key=lambda each: largest[each])
    reaches_all = all(np.nanmin(curve.middle) >= REACHES for curve in curves.values())
    if not (2.0 if reaches_all else GROWS) <= largest[path] < np.inf:
        return ""
    lag = int(np.nanargmax(curves[path].middle))
    return f"The gradient at lag {lag} is {number(largest[path])} times that at lag 0 in {path}"


def _title(horizons: Mapping[str, str]) -> str:
    """Name the steps back at which 1 % of the gradient still arrives, for the shortest and longest layers."""
    ordered = sorted(horizons, key=lambda path: float(horizons[path].removeprefix("≥ ")))
    shown = ordered if len(ordered) <= _MOST_TITLED else [ordered[0], ordered[-1]]
    ends = [f"{horizons[path].removeprefix('≥ ')} steps back in {path}" for path in shown]
    return f"At least 1 % of the gradient arrives {', '.join(ends)}" if ends else "Gradient by lag, R(k)"
