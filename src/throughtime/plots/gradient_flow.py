"""`gradient_flow`: the norm of the gradient against time for all layers of a model in one plot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Unpack

import numpy as np
import xarray as xr

from throughtime._errors import PictureError, SchemaError
from throughtime._inputs import takes
from throughtime._tree import has_state_gradients, state_gradients, states
from throughtime.diagnostics.lags import edges, log_state_gradient, valid_steps
from throughtime.diagnostics.thresholds import REACHES, ROUNDING
from throughtime.picture import Axis, Mark, Panel, Picture
from throughtime.picture._drawing.palettes import hues
from throughtime.picture._drawing.scale import Array, Scale, scale_for
from throughtime.plots.axes import edges_across, time_axis
from throughtime.plots.curves import exponential, median_band, norms
from throughtime.plots.data import Source, count, dotted, has, last_step, layers, located, parts, read
from throughtime.plots.look import Look, checked, finished
from throughtime.plots.profiles import is_sum, legend
from throughtime.plots.recorded import band, is_summary, sampled, state_norms
from throughtime.plots.sentences import named, percent, undrawn

DEEPEST = 1e-30  # of the largest: lines show more decades than colours can
NOTE = (
    "The gradient starts at the loss and flows back in time and down the layers. A line is the median "
    "over samples, a band the middle {share} % of them. The state s is a layer's hidden and cell state "
    "together. A curve that falls towards the first steps processed shows a vanishing gradient."
)


@dataclass(frozen=True)
class NormCurve:
    """Norms of one layer in one direction: the 10 %, 50 % and 90 % quantile over samples at each step."""

    layer: str
    direction: str
    quantiles: tuple[Array, Array, Array]

    @property
    def name(self) -> str:
        """Layer and, if it is backward, direction."""
        return dotted(self.layer, self.direction * (self.direction == "backward"))


@takes(PictureError)
def gradient_flow(captured: xr.DataTree | xr.Dataset, **look: Unpack[Look]) -> Picture:
    """Draw the norm of the state's gradient against time, a curve for each layer, a panel for each direction.

    The state is hidden and cell together. A layer without state gradients is shown by `output_gradient`.

    Parameters
    ----------
    captured : capture or run, or a layer of one
        A run that keeps a summary has quantiles: the band holds the middle 90 % of the samples, and an LSTM's
        hidden and cell state have separate curves.
    **look
        See `tt.plots.Look`: limits, scale, title, width, height.

    Raises
    ------
    SchemaError
        No layer has a gradient with a time axis.

    Examples
    --------
    >>> from throughtime import testing
    >>> picture = gradient_flow(testing.bidirectional(samples=5))
    >>> [panel.title for panel in picture.panels]
    ['forward', 'backward']
    """
    look = checked(look, without=("share", "cmap"))
    every = layers(captured)
    found = [curve for path, leaf in every for curve in _curves(path, sampled(leaf))]
    if not found:
        raise SchemaError(
            "No layer of this capture has a gradient over time. tt.capture(model, x, y) with labels captures "
            "it; quantities=['hidden_gradient', 'cell_gradient'] is enough."
        )
    everything = np.concatenate([np.concatenate(curve.quantiles) for curve in found])
    scale = scale_for(
        everything, look.get("scale") or "log10", look.get("limits") or _range(everything, look)
    )
    sums = {path for path, leaf in every if is_sum(sampled(leaf))}
    names = list(dict.fromkeys(curve.layer for curve in found))
    styles = dict(zip(names, zip(hues(len(names)), legend(names), strict=True), strict=True))
    directions = list(dict.fromkeys(curve.direction for curve in found))
    steps = max(len(curve.quantiles[1]) for curve in found)
    cuts = sorted({step for _, leaf in every for step in edges(sampled(leaf))})
    panels = tuple(
        Panel(
            (
                *_marks([curve for curve in found if curve.direction == name], scale, styles),
                *edges_across(cuts, steps),
            ),
            name if len(directions) > 1 else "",
            *_axes(steps, every, scale),
            grid=True,
        )
        for name in directions
    )
    step = located("", last_step(every[0][1]))
    left_out = undrawn(*(source for _, leaf in every for source in _gradients(last_step(leaf))))
    noun = dotted("gradient flow", count(len(every), "layer"), _samples(every), step, left_out)
    share = 90 if any(is_summary(leaf) for _, leaf in every) else 80
    picture = Picture(panels, note=NOTE.format(share=share), linked="xy")
    return finished(picture, look, (_fades(found, sums), noun), (9.0, 1.2 + 3.0 * len(panels)))


def _fades(curves: list[NormCurve], sums: set[str]) -> str:
    """Name the layers whose gradient loses 99 % of its size before the step processed first.

    `sums` are layers in which error enters at many steps: there a large gradient shows nothing.
    """
    lost = {}
    for curve in curves:
        known = np.flatnonzero(np.isfinite(curve.quantiles[1]))
        if known.size > 1 and (peak := float(curve.quantiles[1][known].max())) > 0:
            first = known[-1] if curve.direction == "backward" else known[0]
            lost[curve.name] = float(curve.quantiles[1][first]) / peak
    faded = [name for name, left in lost.items() if left < REACHES * (1 - ROUNDING)]
    first_step = "first step processed" if "backward" in {each.direction for each in curves} else "first step"
    if not faded:
        lost = {each.name: lost[each.name] for each in curves if each.name in lost and each.layer not in sums}
        if not lost:
            return ""
        least = min(lost, key=lambda name: lost[name])
        return f"Gradient arrives at the {first_step} of {least}: {percent(lost[least])} of its peak"
    return f"Less than {percent(REACHES)} of the peak gradient arrives at the {first_step}: {named(faded)}"


def _range(values: Array, look: Look) -> tuple[float, float] | None:
    """Return the range of all values, down to the numerical floor."""
    if look.get("scale") not in (None, "log10"):
        return None
    sizes = values[np.isfinite(values) & (values > 0)]
    if not sizes.size or sizes.min() == sizes.max():
        return None
    return max(float(sizes.min()) / 1.5, float(sizes.max()) * DEEPEST), float(sizes.max())


def _samples(found: list[tuple[str, xr.Dataset]]) -> str:
    """Count the samples, if the capture or run has them."""
    known = [int(leaf.sizes["sample"]) for _, leaf in found if "sample" in leaf.sizes]
    return count(max(known), "sample") if known else ""


def _gradients(leaf: xr.Dataset) -> Iterator[Source]:
    """Read the gradients that the norms are of, if the capture or run keeps them."""
    own = [name for name in state_gradients(leaf) if has(leaf, name)]
    yield from (read(leaf, name) for name in own or ["output_gradient"] if has(leaf, name))


def _curves(path: str, leaf: xr.Dataset) -> list[NormCurve]:
    if is_summary(leaf):
        return list(_of_summary(path, leaf))
    if (found := _norms(leaf)) is None:
        return []
    if {"sample", "time"} <= set(leaf.dims):
        found = found.where(valid_steps(leaf))
    every = parts(found, ["sample", "time"])
    return [NormCurve(path, name or _direction(leaf), band(part)) for name, part in every]


def _of_summary(path: str, leaf: xr.Dataset) -> Iterator[NormCurve]:
    """Draw each state separately: quantiles of two norms do not determine those of the joint norm."""
    kept = state_norms(leaf)
    for state, each in kept.items():
        label = f"{path} · {state}" if len(kept) > 1 else path
        for name, part in parts(each, ["quantile", "time"]):
            yield NormCurve(label, name or _direction(leaf), band(part))


def _norms(leaf: xr.Dataset) -> xr.DataArray | None:
    """Return the norm of the joint state's gradient, or else of the output's; None without a time axis."""
    if has_state_gradients(leaf):
        return exponential(log_state_gradient(leaf))
    gradient = leaf.get("output_gradient")
    if gradient is None or "time" not in gradient.dims:
        return None
    return norms(gradient)


def _direction(leaf: xr.Dataset) -> str:
    return "backward" if leaf.attrs.get("go_backwards") else "forward"


def _axes(steps: int, every: list[tuple[str, xr.Dataset]], scale: Scale) -> tuple[Axis, Axis]:
    """Return the time axis of the longest layer, and the axis of norms."""
    longest = max((leaf for _, leaf in every), key=lambda leaf: int(leaf.sizes.get("time", 0)))
    symbol = "‖dL/dhₜ‖" if all(tuple(states(leaf)) == ("hidden",) for _, leaf in every) else "‖dL/dsₜ‖"
    x = time_axis(longest, steps, "timestep of the layer's input")
    return x, Axis(scale.label(symbol), (-0.04, 1.06), scale.ticks())


def _marks(curves: list[NormCurve], scale: Scale, styles: dict[str, tuple[str, str]]) -> tuple[Mark, ...]:
    """Draw curves in the colour of their layer, with its label."""
    marks: list[Mark] = []
    for curve in curves:
        color, label = styles[curve.layer]
        marks += median_band(curve.quantiles, color, scale, labels=("", label))
    return tuple(marks)
