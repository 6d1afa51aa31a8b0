"""What is wrong at a recorded step: each alarm has a name, a place and its evidence, and is given once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from throughtime._alarm import Alarm
from throughtime._label import Captured, Leaf
from throughtime.diagnostics import first_nonfinite

from .arrays import Array, Arrays, Reduced

NAMES = ("nonfinite", "explosion", "vanishing", "saturation", "dead_gradient")
_GROWS = 10.0  # times the signal at lag 0
_FADES = 0.01
_SATURATED = 0.9
_MEMORY = {"lstm": "forget", "gru": "update"}  # a gate that stays open remembers: no fault


def alarms_of(captured: Captured, summary: Reduced, step: int, lag: int | str | None) -> Iterator[Alarm]:
    """Look through one capture and its summary.

    Parameters
    ----------
    captured : Captured
    summary : Reduced
        The "summary" level of it.
    lag : int, "half" of the window, or None
        Vanishing is told where less than 1 % of the signal reaches so far back.
    """
    if not all(map(_is_finite, captured.leaves.values())):
        broken = first_nonfinite(captured.tree())
        if broken is not None:
            yield Alarm("nonfinite", broken.layer.strip("/"), step, str(broken))
            return  # all else follows from it
    for path, arrays in summary.items():
        for name, evidence in _of_layer(captured.leaves[path], arrays, lag):
            yield Alarm(name, path.strip("/"), step, evidence)


def _is_finite(leaf: Leaf) -> bool:
    """Whether there is nothing to look for; masked steps and certificates may say no without need."""
    floats = (values for values in leaf.arrays.values() if values.dtype.kind in "fc")
    return all(bool(np.isfinite(values).all()) for values in floats)


def _of_layer(leaf: Leaf, arrays: Arrays, lag: int | str | None) -> Iterator[tuple[str, str]]:
    output = leaf.arrays.get("output_gradient")
    if output is not None and not np.any(np.abs(output) > 0):
        yield "dead_gradient", "the loss sends no gradient at all to the layer's output"
    if "lag_ratio" in arrays:
        yield from _through_time(arrays["lag_ratio"], leaf.layout, lag)
    if "saturation_left" in arrays:
        yield from _saturated(arrays, leaf.layout)


def _through_time(ratio: Array, layout: xr.Dataset, lag: int | str | None) -> Iterator[tuple[str, str]]:
    named = "direction" in ratio.dims
    lag = len(ratio.values) // 2 if isinstance(lag, str) else lag
    names = [f", {name}" for name in layout["direction"].values] if named else [""]
    for way, values in zip(names, ratio.values.reshape(-1, len(names)).T, strict=True):
        if np.isfinite(values).any() and np.nanmax(values) > _GROWS:
            at = int(np.nanargmax(values))
            yield "explosion", f"{values[at]:.3g} times the signal of lag 0 arrives at lag {at}{way}"
        if lag is not None and lag < len(values) and values[lag] < _FADES:
            yield "vanishing", f"{values[lag]:.2g} of the signal of lag 0 arrives at lag {lag}{way}"


def _saturated(arrays: Arrays, layout: xr.Dataset) -> Iterator[tuple[str, str]]:
    gates, kind = [str(gate) for gate in layout["gate"].values], str(layout.attrs.get("kind"))
    for side, end in (("left", "shut"), ("right", "open")):
        shares = arrays[f"saturation_{side}"].values.reshape(-1, len(gates))  # gate is the last dim
        for gate, share in zip(gates, shares.T, strict=True):
            if side == "right" and gate == _MEMORY.get(kind):
                continue
            known = share[~np.isnan(share)]
            if known.size and known.max() > _SATURATED:
                yield (
                    "saturation",
                    f"{known.max():.0%} of the {gate} gate's values are at its {side} end, {end}",
                )
