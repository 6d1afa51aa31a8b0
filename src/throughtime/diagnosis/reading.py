"""How the layers of a model read time, and at which steps the prefix swap evaluates losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from throughtime.diagnostics.lags import valid_steps

from . import measure
from .layers import ways
from .swap import Reading
from .words import phrase

_ANCHORS = 4


def reading_of(leaves: Mapping[str, xr.Dataset], *, by_step: bool, lag: int | None) -> Reading:
    """Describe how layers that read the same time read it.

    If the loss has a value at every step, `by_step`, some of them are evaluated: those that have the
    requested lag.
    """
    reading = Reading(np.asarray(valid_steps(next(iter(leaves.values())))), ways(leaves))
    return replace(reading, anchors=anchors(reading, _ANCHORS, lag or 0)) if by_step else reading


def why_not_swapped(attributes: Mapping[Any, Any], leaves: Mapping[str, xr.Dataset]) -> str:
    """Return why inputs cannot be exchanged between samples; empty where they can."""
    why = ""
    if str(attributes.get("loss_reduction", "")).startswith("couples"):
        why = phrase("coupled")
    if any("reset" in leaf and leaf["reset"].any() for leaf in leaves.values()):
        why = phrase("resets")
    if any(leaf.attrs.get("output_reversed") for leaf in leaves.values()) and len(leaves) > 1:
        why = phrase("reversed")
    return why


def anchors(reading: Reading, count: int, lag: int) -> tuple[int, ...]:
    """Choose some steps whose losses are looked at, in the half that has most inputs before it."""
    steps, read = reading.valid.shape[1], reading.ways
    start, end = (steps // 4, steps - 1 - steps // 4) if len(read) > 1 else (steps // 2, steps - 1)
    start = max(start, min(lag, end)) if len(read) == 1 else start
    found = np.unique(np.linspace(start, end, count).round().astype(int))
    if read == {"backward"}:
        found = steps - 1 - found
    return tuple(int(anchor) for anchor in found)


def per_step(leaves: Mapping[str, xr.Dataset], y: Any) -> bool:
    """Whether the loss has a value at every step that a layer reads: by its labels and by what it asks."""
    shape = tuple(getattr(y, "shape", ()))
    if len(shape) < 2 or shape[1] < 2:
        return False
    same = [leaf for leaf in leaves.values() if leaf.sizes.get("time") == shape[1]]
    return bool(same) and measure.reads_many_steps(same[-1])
