"""Curves R(k) of a layer, one for each direction, for `lag_profile`, `overview` and `training`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from throughtime._tree import reads_many_steps
from throughtime.diagnosis.layers import by_direction
from throughtime.diagnosis.measure import FROM_LAST_STEP, at_one_step, needs_last_step
from throughtime.diagnostics import lag_profile as measured
from throughtime.diagnostics.lags import signals
from throughtime.diagnostics.thresholds import REACHES
from throughtime.picture import Axis, Band, Line, Mark, Panel
from throughtime.picture._drawing.palettes import hues
from throughtime.picture._drawing.scale import FLOOR, Array, Scale
from throughtime.plots.recorded import is_summary
from throughtime.plots.sentences import reach

MOST_LABELLED = 8  # curves
LONGEST = 32  # letters of a name beside others


@dataclass(frozen=True)
class LagCurve:
    """R(k) in one direction: median and its interval at each lag, and the curve of each sample.

    `basis` is "" if error enters at one step, "last" if the error of the last step was separated from that of
    others, and "sum" if it could not be.
    """

    direction: str
    middle: Array
    low: Array
    high: Array
    samples: int | None = None
    each: Array | None = None
    basis: str = ""

    @property
    def lags(self) -> Array:
        """Lags of the curve."""
        return np.arange(float(len(self.middle)))

    def found(self, threshold: float) -> str:
        """Describe how far the gradient reaches; a sum over many steps shows nothing."""
        if self.samples == 0:
            return "is, in every sample, 0 at lag 0 or not finite"
        words = reach(self.middle, threshold)
        if self.basis == "sum" and words.startswith("reaches"):
            return "enters at many steps, so that R(k) does not show how far it reaches"
        return words


def profiles(layer: xr.Dataset) -> list[LagCurve]:
    """Measure R(k) of a layer as `diagnose` does: if error enters at many steps, only that of the last."""
    return [_profile(part) for part in by_direction({"": layer}).values()]


def _profile(part: xr.Dataset) -> LagCurve:
    direction = str(part["direction"].item()) if "direction" in part.coords else ""
    if is_summary(part):
        names = ("lag_ratio", "lag_ratio_low", "lag_ratio_high")
        ratio, low, high = (part[name].values for name in names)
        return LagCurve(direction, ratio, low, high)
    alone, _ = at_one_step(part)
    basis = "sum" if needs_last_step(alone) else "last" if FROM_LAST_STEP in alone.attrs else ""
    found, logs = measured(alone), signals(alone)["log_ratio"].transpose("sample", "lag")
    curves = np.exp(np.minimum(logs.values, 700.0))
    low, middle, high = (found[name].values for name in ("low", "ratio", "high"))
    return LagCurve(direction, middle, low, high, int(found["samples"].max()), curves, basis)


def is_sum(layer: xr.Dataset) -> bool:
    """Whether a layer's gradients may be sums over error that enters at many steps."""
    if is_summary(layer):
        return "time" in layer.get("output_gradient_norm", xr.DataArray(0.0)).dims
    return FROM_LAST_STEP not in layer.attrs and reads_many_steps(layer)


def fitted(drawn: list[Array], threshold: float, limits: tuple[float, float] | None = None) -> Scale:
    """Fit a scale to what is drawn: down to its least value, and to the threshold if that is near."""
    if limits is not None:
        return Scale("log10", *map(float, limits))
    values = np.concatenate([each.ravel() for each in drawn])
    finite = values[np.isfinite(values) & (values > 0)]
    least = float(finite.min(initial=1.0))
    lowest = least / 2 if least > 10 * threshold else min(threshold / 4, least / 2)
    return Scale("log10", max(FLOOR / 4, lowest), float(finite.max(initial=1.0)))


def curve_marks(curve: LagCurve, scale: Scale, color: str, label: str, band: str = "") -> list[Mark]:
    """Draw the median of one direction with its interval; a curve that falls below the scale ends there."""
    details = (("lag", curve.lags), ("R", curve.middle))
    line = Line(curve.lags, scale.curve(curve.middle), color, 2.0, label=label, details=details)
    if np.isnan(curve.low).all():
        return [line]
    return [Band(curve.lags, scale.clipped(curve.low), scale.curve(curve.high), color, 0.2, label=band), line]


def levels(ends: Array, scale: Scale, threshold: float) -> list[Mark]:
    """Draw the threshold, and the precision of float32 if the scale includes it."""
    words = ((threshold, "#c0447a", f"threshold {threshold:g}"), (FLOOR, "#8a8a8a", "2⁻²⁴, float32"))
    places = [(float(scale.position(np.array(value))), color, word) for value, color, word in words]
    return [
        Line(ends, np.full(2, at), color, 1.0, dashed=True, label=word)
        for at, color, word in places
        if 0 < at < 1
    ]


def legend(names: Sequence[str]) -> list[str]:
    """Return the label of each curve; if they are many, only the first and the last have one."""
    ends, short = (0, len(names) - 1), [*map(shortened, names)]
    labels = short if len({*short}) == len({*names}) else names
    return [label if len(names) <= MOST_LABELLED or at in ends else "" for at, label in enumerate(labels)]


def shortened(name: str) -> str:
    """Return both ends of a long name: names may differ at either."""
    half = LONGEST // 2
    return name if len(name) <= LONGEST else f"{name[:half]}…{name[1 - half :]}"


def reach_panel(curves: Mapping[str, LagCurve], title: str = "", lag: int | None = None) -> Panel:
    """Draw R(k) of several layers in one panel, with the threshold and, if it is given, a lag."""
    scale = fitted([end for each in curves.values() for end in (each.middle, each.low, each.high)], REACHES)
    longest = max(1.0, *(float(curve.lags[-1]) for curve in curves.values()))
    marks: list[Mark] = []
    for color, label, curve in zip(hues(len(curves)), legend([*curves]), curves.values(), strict=True):
        marks += curve_marks(curve, scale, color, label)
    marks += levels(np.array([0.0, longest]), scale, REACHES)
    if lag is not None and lag <= longest:
        line = np.full(2, float(lag)), np.array([0.0, 1.0])
        marks.append(Line(*line, "#666666", 1.2, dashed=True, label=f"lag {lag}"))
    y = Axis(scale.label("R(k)"), (-0.03, 1.05), scale.ticks())
    return Panel(tuple(marks), title, Axis("lag k, steps back", (-0.5, longest + 0.5)), y, grid=True)
