"""Curves R(k) of a layer, one a direction: what `lag_profile`, `compare` and `overview` draw."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr

from throughtime._drawing.scale import FLOOR, Array, Scale
from throughtime.diagnosis.layers import by_direction
from throughtime.diagnosis.measure import FROM_LAST_STEP, at_one_step, needs_last_step, reads_many_steps
from throughtime.diagnostics import lag_profile as measured
from throughtime.diagnostics.lags import signals
from throughtime.plots.findings import reach
from throughtime.plots.recorded import is_summary


@dataclass(frozen=True)
class Profile:
    """R(k) in one direction: median and its interval at each lag, and the curve of each sample.

    `basis` says whose error it is: "" where error enters at one step, "last" where the error of the last step
    was told from that of others, "sum" where it could not be.
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
        """Say how far the gradient reaches; a sum over many steps reaches everywhere, and shows nothing."""
        words = reach(self.middle, threshold)
        if self.basis == "sum" and words.startswith("reaches"):
            return "enters at many steps, so that R(k) does not show how far it reaches"
        return words


def profiles(layer: xr.Dataset) -> list[Profile]:
    """Measure R(k) of a layer, as `diagnose` does: of error that enters at many steps the last alone."""
    return [_profile(part) for part in by_direction({"": layer}).values()]


def _profile(part: xr.Dataset) -> Profile:
    direction = str(part["direction"].item()) if "direction" in part.coords else ""
    if is_summary(part):
        ratio = part["lag_ratio"].values
        low, high = (
            part[f"lag_ratio_{end}"].values if f"lag_ratio_{end}" in part else np.full(ratio.shape, np.nan)
            for end in ("low", "high")
        )
        return Profile(direction, ratio, low, high)
    alone, _ = at_one_step(part)
    basis = "sum" if needs_last_step(alone) else "last" if FROM_LAST_STEP in alone.attrs else ""
    found, logs = measured(alone), signals(alone)["log_ratio"].transpose("sample", "lag")
    curves = np.exp(np.minimum(logs.values, 700.0))
    low, middle, high = (found[name].values for name in ("low", "ratio", "high"))
    return Profile(direction, middle, low, high, int(found["samples"].max()), curves, basis)


def is_sum(layer: xr.Dataset) -> bool:
    """Whether a layer's gradients may be sums over error that enters at many steps."""
    if is_summary(layer):
        return "time" in layer.get("output_gradient_norm", xr.DataArray(0.0)).dims
    return FROM_LAST_STEP not in layer.attrs and reads_many_steps(layer)


def fitted(curves: list[Profile], threshold: float, limits: tuple[float, float] | None = None) -> Scale:
    """Fit a scale to curves: from the threshold, or the least of them, down to the floor at most."""
    if limits is not None:
        return Scale("log10", *map(float, limits))
    values = np.concatenate(list(_values(curves)))
    finite = values[np.isfinite(values) & (values > 0)]
    lowest = min(threshold / 4, float(finite.min(initial=1.0)) / 2)
    return Scale("log10", max(FLOOR / 4, lowest), float(finite.max(initial=1.0)))


def _values(curves: list[Profile]) -> Iterator[Array]:
    for curve in curves:
        yield curve.middle if curve.each is None else curve.each.ravel()
