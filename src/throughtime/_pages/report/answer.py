"""The plots that a report opens with: R(k) of all layers, and sparklines of a run's records."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from throughtime._errors import ThroughTimeError
from throughtime.diagnosis.results import NOT_MEASURED, steps_of
from throughtime.diagnosis.training import History
from throughtime.diagnosis.words import number, size
from throughtime.diagnostics.checks import certified
from throughtime.diagnostics.thresholds import GROWS, REACHES
from throughtime.picture import Picture
from throughtime.plots.data import layers
from throughtime.plots.profiles import LagCurve, profiles, reach_panel
from throughtime.plots.recorded import sampled

WIDTH, HEIGHT, MARGIN = 160.0, 34.0, 3.0  # of a sparkline, in pixels
_MOST_TITLED = 3  # layers
NOTE = (
    "R(k) is the gradient of a layer's state k steps before the step that the loss reads, relative to its "
    "size there: median over samples, with its 95 % interval. Steps at which a curve is below the "
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

    The title names the horizons of layers, in steps; gradients that grow are its subject instead.
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
    """Name the horizon of the layers where the gradient is lost, of all if it is in none."""
    lost = {path: steps for path, steps in horizons.items() if not steps.startswith("≥")}
    ordered = sorted(lost or horizons, key=lambda path: steps_of(horizons[path]))
    named = ordered if len(ordered) <= _MOST_TITLED else [ordered[0], ordered[-1]]
    ends = ", ".join(f"lag {steps_of(horizons[path]):.0f} in {path}" for path in named)
    start = (
        "Less than 1 % of the gradient arrives beyond" if lost else "At least 1 % of the gradient arrives at"
    )
    return f"{start} {ends}" if ends else "Gradient by lag, R(k)"


@dataclass(frozen=True)
class Spark:
    """A curve without axes: its name, points, height of the threshold, and ends in words."""

    name: str
    points: tuple[tuple[float, float], ...]
    threshold: float | None
    words: str


def sparks(history: History) -> tuple[Spark, ...]:
    """Draw the loss, and the reach of each layer at the judged lag on a logarithmic scale."""
    steps = [record.step for record in history.records]
    losses = [record.loss for record in history.records]
    found = [_spark("Loss", steps, losses, None, number)]
    for path in dict.fromkeys(path for record in history.records for path in record.layers):
        ratios, horizons = [], []
        for record in history.records:
            layer = record.layers.get(path)
            ratios.append(math.nan if layer is None else layer.reach.value)
            if layer is not None and layer.horizon != NOT_MEASURED:
                horizons.append(layer.horizon)
        logs = [math.log10(each) if each > 0 else math.nan for each in ratios]
        name = f"Reach of {path} at lag {history.lag}"
        one = _spark(name, steps, logs, math.log10(REACHES), lambda log: size(10**log))
        ends = " → ".join(dict.fromkeys(horizons[:1] + horizons[-1:]))
        words = f"{one.words}; horizon {ends} steps" if ends else one.words
        found.append(Spark(one.name, one.points, one.threshold, words))
    return tuple(each for each in found if len(each.points) > 1)


def _spark(
    name: str,
    steps: Sequence[int],
    values: Sequence[float],
    threshold: float | None,
    write: Callable[[float], str],
) -> Spark:
    known = [(step, value) for step, value in zip(steps, values, strict=True) if math.isfinite(value)]
    if not known:
        return Spark(name, (), None, "")
    heights = [value for _, value in known] + ([] if threshold is None else [threshold])
    low, high = min(heights), max(heights)
    first, last = known[0][0], known[-1][0]

    def up(value: float) -> float:
        return HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * ((value - low) / (high - low) if high > low else 0.5)

    across = (WIDTH - 2 * MARGIN) / max(1, last - first)
    points = tuple((round(MARGIN + (step - first) * across, 1), round(up(value), 1)) for step, value in known)
    ends = " → ".join(dict.fromkeys(write(value) for _, value in (known[0], known[-1])))
    return Spark(name, points, None if threshold is None else round(up(threshold), 1), ends)
