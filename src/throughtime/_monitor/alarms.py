"""What is wrong at a recorded step: each alarm has a name, a place and its evidence, and is given once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from throughtime._alarm import Alarm
from throughtime.diagnostics import first_nonfinite

from .levels import norm

NAMES = ("nonfinite", "explosion", "vanishing", "saturation", "dead_gradient")
_GROWS = 10.0  # times the signal at lag 0
_FADES = 0.01
_SATURATED = 0.9
_MEMORY = {"lstm": "forget", "gru": "update"}  # a gate that stays open remembers: no fault


def alarms_of(tree: xr.DataTree, reduced: xr.DataTree, step: int, lag: int | None) -> Iterator[Alarm]:
    """Look through one capture and its summary.

    Parameters
    ----------
    tree, reduced : DataTree
        The capture, and the "summary" level of it.
    lag : int or None
        Vanishing is told where less than 1 % of the signal reaches so far back.
    """
    broken = first_nonfinite(tree)
    if broken is not None:
        yield Alarm("nonfinite", broken.layer.strip("/"), step, str(broken))
        return  # all else follows from it
    for leaf in reduced.leaves:
        summary, path = leaf.to_dataset(), leaf.path.strip("/")
        for name, evidence in _of_layer(tree[leaf.path].to_dataset(), summary, lag):
            yield Alarm(name, path, step, evidence)


def _of_layer(leaf: xr.Dataset, summary: xr.Dataset, lag: int | None) -> Iterator[tuple[str, str]]:
    if "output_gradient" in leaf and not bool(norm(leaf["output_gradient"]) > 0):
        yield "dead_gradient", "the loss sends no gradient at all to the layer's output"
    if "lag_ratio" in summary:
        yield from _through_time(summary["lag_ratio"], lag)
    if "saturation_left" in summary:
        yield from _saturated(summary, str(leaf.attrs.get("kind")))


def _through_time(ratio: xr.DataArray, lag: int | None) -> Iterator[tuple[str, str]]:
    ways = ratio.transpose("direction", "lag") if "direction" in ratio.dims else [ratio]
    for each in ways:
        values = each.values
        way = f", {each['direction'].item()}" if "direction" in each.coords else ""
        if np.isfinite(values).any() and np.nanmax(values) > _GROWS:
            at = int(np.nanargmax(values))
            yield "explosion", f"{values[at]:.3g} times the signal of lag 0 arrives at lag {at}{way}"
        if lag is not None and lag < len(values) and values[lag] < _FADES:
            yield "vanishing", f"{values[lag]:.2g} of the signal of lag 0 arrives at lag {lag}{way}"


def _saturated(summary: xr.Dataset, kind: str) -> Iterator[tuple[str, str]]:
    for side, end in (("left", "shut"), ("right", "open")):
        shares = summary[f"saturation_{side}"]
        for gate in shares["gate"].values:
            if side == "right" and gate == _MEMORY.get(kind):
                continue
            share = float(shares.sel(gate=gate).max())
            if share > _SATURATED:
                yield "saturation", f"{share:.0%} of the {gate} gate's values are at its {side} end, {end}"
