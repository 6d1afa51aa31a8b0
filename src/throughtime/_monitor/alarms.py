"""Finds alarms at a recorded step: each has a name, a place and its evidence, and is raised once.

The tests are those of `diagnostics.rules`, which verdicts use as well.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import xarray as xr

from throughtime._capture.label import Captured, Leaf, NamedArray
from throughtime.adapters.optimizer import OptimizerStep
from throughtime.diagnostics import first_nonfinite
from throughtime.diagnostics.alarm import Alarm
from throughtime.diagnostics.lags import Floats
from throughtime.diagnostics.rules import NO, answer, explodes, has_risen, is_bounded, saturated_gates
from throughtime.diagnostics.rules import growth as growth_of
from throughtime.diagnostics.statistics import median_interval

from .arrays import Arrays, Reduced
from .levels import has_lags
from .reduce import by_direction, log_ratios

NAMES = ("nonfinite", "explosion", "vanishing", "saturation", "dead_gradient")


@dataclass
class Training:
    """The state of training that alarms need in addition to a record."""

    vanishing_lag: int | str | None = "half"  # the gradient has to reach it; half of the window
    optimizer: OptimizerStep = field(default_factory=OptimizerStep)
    losses: list[float] = field(default_factory=list)  # of the records so far, the current one last
    clip_ratio: float = np.nan  # share of the gradient's norm that clipping left, if the loop reported it


class SeenLayer(NamedTuple):
    """Data of one layer for alarms, beside its summary: `is_reached` if its output receives a gradient."""

    layout: xr.Dataset
    is_reached: bool
    log_ratios: NamedArray | None  # (sample, [direction,] lag)


def seen_layers(captured: Captured) -> dict[str, SeenLayer]:
    """Return what alarms need of each layer of a capture, by path."""
    return {
        path: SeenLayer(
            leaf.layout, is_reached(leaf), log_ratios(leaf.arrays, leaf.layout) if has_lags(leaf) else None
        )
        for path, leaf in captured.leaves.items()
    }


def is_reached(leaf: Leaf) -> bool:
    """Whether the layer's output receives a gradient, or has none that was captured."""
    output = leaf.arrays.get("output_gradient")
    return output is None or bool(np.any(np.abs(output.values) > 0))


def broken_in(captured: Captured, step: int) -> Alarm | None:
    """Find the first number that is not finite."""
    if all(map(_is_finite, captured.leaves.values())):
        return None
    broken = first_nonfinite(captured.tree())
    return None if broken is None else Alarm("nonfinite", broken.layer.strip("/"), step, str(broken))


def alarms_of(
    layers: Mapping[str, SeenLayer], summary: Reduced, step: int, training: Training
) -> Iterator[Alarm]:
    """Find the alarms in layers whose numbers are finite, by path, and their "summary"."""
    for path, arrays in summary.items():
        for name, found in _check_layer(layers[path], arrays, training):
            yield Alarm(name, path.strip("/"), step, found)


def _is_finite(leaf: Leaf) -> bool:
    """Whether every number is finite, including masked steps and certificates."""
    floats = (array.values for array in leaf.arrays.values() if array.dtype.kind in "fc")
    return all(bool(np.isfinite(values).all()) for values in floats)


def _check_layer(seen: SeenLayer, arrays: Arrays, training: Training) -> Iterator[tuple[str, str]]:
    layout = seen.layout
    if not seen.is_reached:
        yield "dead_gradient", "the layer's output receives no gradient from the loss"
    if seen.log_ratios is not None:
        names = layout["direction"].values if "direction" in layout.sizes else [""]
        for at, (name, rows) in enumerate(zip(names, by_direction(seen.log_ratios), strict=True)):
            way = f", {name}" if name else ""
            yield from _check_explosion(rows, _step(arrays, at, training), layout, training, way)
            yield from _check_vanishing(rows, training.vanishing_lag, way)
    if "saturation_left" in arrays:
        yield from _check_saturation(arrays, layout)


def _step(arrays: Arrays, at: int, training: Training) -> float:
    """Change of a direction's recurrent weights in the next step, relative to their norm; NaN if unknown."""
    names = ("recurrent_kernel_gradient_norm", "recurrent_kernel_norm")
    if not all(name in arrays for name in names):
        return np.nan
    gradient, weights = (
        float(np.linalg.norm(array.values[at] if "direction" in array.dims else array.values))
        for array in (arrays[name] for name in names)
    )
    clipped = gradient * (1.0 if np.isnan(training.clip_ratio) else training.clip_ratio)
    return training.optimizer.relative(clipped, weights, np.inf)


def _check_explosion(
    ratios: Floats, step: float, layout: xr.Dataset, training: Training, way: str
) -> Iterator[tuple[str, str]]:
    grown = growth_of(ratios)
    if explodes(grown, step, training.losses, is_bounded=is_bounded(layout.attrs)):
        if has_risen(training.losses):
            harm = f"the loss has risen from {training.losses[0]:.3g} to {training.losses[-1]:.3g}"
        else:
            harm = f"the next step changes the recurrent weights by {step:.3g} times their norm"
        yield (
            "explosion",
            f"the gradient at lag {grown.lag} is {grown.factor:.3g} times that at lag 0{way}, and {harm}",
        )


def _check_vanishing(ratios: Floats, asked: int | str | None, way: str) -> Iterator[tuple[str, str]]:
    lag = ratios.shape[1] // 2 if isinstance(asked, str) else asked
    if not lag or lag >= ratios.shape[1]:
        return
    with np.errstate(under="ignore", over="ignore"):
        middle, *ends = (float(np.exp(each)) for each in median_interval(ratios[:, lag]))
    if answer(*ends) == NO:
        found = f"the gradient at lag {lag} is {middle:.2g} times that at lag 0{way}"
        if isinstance(asked, str):  # half of the window: what the task needs is not known
            found += "; this is a fault only if the task needs inputs that old"
        yield "vanishing", found


def _check_saturation(arrays: Arrays, layout: xr.Dataset) -> Iterator[tuple[str, str]]:
    gates, kind = [str(gate) for gate in layout["gate"].values], str(layout.attrs.get("kind"))
    sides = (arrays[f"saturation_{side}"].values.reshape(-1, len(gates)) for side in ("left", "right"))
    for left, right in zip(*sides, strict=True):  # gate is the last dim
        for gate, end, share in saturated_gates(left, right, gates, kind):
            yield "saturation", f"the {gate} gate is {end} at {share:.0%} of the steps"
