"""What is wrong at a recorded step: each alarm has a name, a place and its evidence, and is given once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from throughtime._alarm import Alarm
from throughtime.diagnostics import first_nonfinite

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
    leaves = {leaf.path: leaf.to_dataset() for leaf in tree.leaves}
    if not all(map(_is_finite, leaves.values())):
        broken = first_nonfinite(tree)
        if broken is not None:
            yield Alarm("nonfinite", broken.layer.strip("/"), step, str(broken))
            return  # all else follows from it
    for leaf in reduced.leaves:
        summary, path = leaf.to_dataset(), leaf.path.strip("/")
        for name, evidence in _of_layer(leaves[leaf.path], summary, lag):
            yield Alarm(name, path, step, evidence)


def _is_finite(leaf: xr.Dataset) -> bool:
    """Whether there is nothing to look for; masked steps and certificates may say no without need."""
    floats = (each.values for each in leaf.variables.values() if each.dtype.kind in "fc")
    return all(bool(np.isfinite(values).all()) for values in floats)


def _of_layer(leaf: xr.Dataset, summary: xr.Dataset, lag: int | None) -> Iterator[tuple[str, str]]:
    output = leaf.variables.get("output_gradient")
    if output is not None and not np.any(np.abs(output.values) > 0):
        yield "dead_gradient", "the loss sends no gradient at all to the layer's output"
    if "lag_ratio" in summary.variables:
        yield from _through_time(summary, lag)
    if "saturation_left" in summary.variables:
        yield from _saturated(summary, str(leaf.attrs.get("kind")))


def _through_time(summary: xr.Dataset, lag: int | None) -> Iterator[tuple[str, str]]:
    ratio = summary.variables["lag_ratio"].transpose(..., "lag")
    named = "direction" in ratio.dims
    names = [f", {name}" for name in summary["direction"].values] if named else [""]
    for way, values in zip(names, ratio.values.reshape(len(names), -1), strict=True):
        if np.isfinite(values).any() and np.nanmax(values) > _GROWS:
            at = int(np.nanargmax(values))
            yield "explosion", f"{values[at]:.3g} times the signal of lag 0 arrives at lag {at}{way}"
        if lag is not None and lag < len(values) and values[lag] < _FADES:
            yield "vanishing", f"{values[lag]:.2g} of the signal of lag 0 arrives at lag {lag}{way}"


def _saturated(summary: xr.Dataset, kind: str) -> Iterator[tuple[str, str]]:
    gates = [str(gate) for gate in summary["gate"].values]
    for side, end in (("left", "shut"), ("right", "open")):
        shares = summary.variables[f"saturation_{side}"].transpose(..., "gate").values
        for gate, share in zip(gates, shares.reshape(-1, len(gates)).T, strict=True):
            if side == "right" and gate == _MEMORY.get(kind):
                continue
            known = share[~np.isnan(share)]
            if known.size and known.max() > _SATURATED:
                yield (
                    "saturation",
                    f"{known.max():.0%} of the {gate} gate's values are at its {side} end, {end}",
                )
