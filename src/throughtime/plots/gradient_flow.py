"""`gradient_flow`: the norm of the gradient against time for all layers of a model in one picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Unpack

import numpy as np
import xarray as xr

from throughtime._arguments import takes
from throughtime._drawing.palettes import palette
from throughtime._drawing.scale import Array, Scale, scale_for
from throughtime._drawing.theme import DISTINCT
from throughtime._errors import PictureError, SchemaError
from throughtime._tree import states
from throughtime.diagnostics.lags import log_norm, log_state_gradient, valid_steps
from throughtime.diagnostics.thresholds import REACHES, ROUNDING
from throughtime.picture import Axis, Band, Line, Mark, Panel, Picture
from throughtime.plots.axes import labels, time_axis
from throughtime.plots.data import count, dotted, last_step, layers, located, parts
from throughtime.plots.findings import named, percent
from throughtime.plots.look import Look, checked, size, titled
from throughtime.plots.profiles import is_sum
from throughtime.plots.recorded import band, is_summary, sampled, state_norms

DEEPEST = 1e-30  # of the largest: lines show more decades than colours can
NOTE = (
    "The error enters at the loss and flows back in time and down the layers. A line is the median over "
    "samples, a band the middle {share} % of them; a curve that falls towards the first steps processed is "
    "an error that fades."
)


@dataclass(frozen=True)
class Curve:
    """Norms of one layer in one direction: 10 %, 50 % and 90 % quantile over samples at each step."""

    layer: str
    direction: str
    quantiles: tuple[Array, Array, Array]

    @property
    def name(self) -> str:
        """Layer and, of a backward one, direction."""
        return dotted(self.layer, self.direction * (self.direction == "backward"))


@takes(PictureError)
def gradient_flow(captured: xr.DataTree | xr.Dataset, **look: Unpack[Look]) -> Picture:
    """Draw the norm of the state's gradient against time, every layer a curve, directions in panels apart.

    The state is hidden and cell together. A layer without an inside is shown by its `output_gradient`.

    Parameters
    ----------
    captured : capture or run, or a layer of one
        A run that keeps a summary has quantiles: the band holds the middle 90 % of the samples, and an LSTM's
        hidden and cell state are curves of their own.
    **look
        See `tt.plots.Look`: limits, scale, title, width, height.

    Returns
    -------
    Picture

    Raises
    ------
    SchemaError
        No layer has a gradient with a time axis.
    PictureError
        An argument is not as described above.

    Examples
    --------
    >>> from throughtime import testing
    >>> picture = gradient_flow(testing.bidirectional(samples=5))
    >>> [panel.title for panel in picture.panels]
    ['forward', 'backward']
    """
    look = checked(look, without=("share", "cmap"))
    found = [curve for path, leaf in layers(captured) for curve in _curves(path, sampled(leaf))]
    if not found:
        raise SchemaError(
            "No layer of this capture has a gradient over time. tt.capture(model, x, y) with labels has it; "
            "quantities=['hidden_gradient', 'cell_gradient'] is enough."
        )
    everything = np.concatenate([np.concatenate(curve.quantiles) for curve in found])
    scale = scale_for(
        everything, look.get("scale") or "log10", look.get("limits") or _range(everything, look)
    )
    sums = {path for path, leaf in layers(captured) if is_sum(sampled(leaf))}
    names = list(dict.fromkeys(curve.layer for curve in found))
    shades = dict(zip(names, _shades(len(names)), strict=True))
    directions = list(dict.fromkeys(curve.direction for curve in found))
    panels = tuple(
        Panel(
            _marks([curve for curve in found if curve.direction == name], scale, shades),
            name,
            *_axes(found, layers(captured), scale),
            grid=True,
        )
        for name in directions
    )
    step = located("", last_step(layers(captured)[0][1]))
    noun = f"gradient flow · {count(len(layers(captured)), 'layer')}{_samples(layers(captured))}"
    noun = f"{noun} · {step}" if step else noun
    return Picture(
        panels,
        **titled(look, _fades(found, sums), noun),
        note=NOTE.format(share=90 if any(is_summary(leaf) for _, leaf in layers(captured)) else 80),
        linked="xy",
        **size(look, 9.0, 1.2 + 3.0 * len(panels)),
    )


def _fades(curves: list[Curve], sums: set[str]) -> str:
    """Name the layers whose gradient loses 99 % of its size on its way to the step processed first.

    `sums` are layers in which error enters at many steps: there a gradient that is left shows nothing.
    """
    lost = {}
    for curve in curves:
        known = np.flatnonzero(np.isfinite(curve.quantiles[1]))
        if known.size > 1 and (peak := float(curve.quantiles[1][known].max())) > 0:
            first = known[-1] if curve.direction == "backward" else known[0]
            lost[curve.name] = float(curve.quantiles[1][first]) / peak
    faded = [name for name, left in lost.items() if left < REACHES * (1 - ROUNDING)]
    if not faded:
        lost = {each.name: lost[each.name] for each in curves if each.name in lost and each.layer not in sums}
        if not lost:
            return ""
        least = min(lost, key=lambda name: lost[name])
        return f"Gradient arrives at the first step of {least}: {percent(lost[least])} of its peak"
    return f"Less than {percent(REACHES)} of the peak gradient arrives at the first step: {named(faded)}"


def _range(values: Array, look: Look) -> tuple[float, float] | None:
    """All that is drawn, down to the numerical floor or to the last decade of an explosion."""
    if look.get("scale") not in (None, "log10"):
        return None
    sizes = values[np.isfinite(values) & (values > 0)]
    if not sizes.size or sizes.min() == sizes.max():
        return None
    return max(float(sizes.min()) / 1.5, float(sizes.max()) * DEEPEST), float(sizes.max())


def _shades(number: int) -> list[str]:
    if number <= len(DISTINCT):
        return list(DISTINCT[:number])
    colors = palette("batlow")
    return [colors[int(place)] for place in np.linspace(0, 200, number)]


def _samples(found: list[tuple[str, xr.Dataset]]) -> str:
    """Count the samples, where the capture or run has them."""
    known = [int(leaf.sizes["sample"]) for _, leaf in found if "sample" in leaf.sizes]
    return f" · {count(max(known), 'sample')}" if known else ""


def _curves(path: str, leaf: xr.Dataset) -> list[Curve]:
    if is_summary(leaf):
        return list(_of_summary(path, leaf))
    norms = _norms(leaf)
    if norms is None:
        return []
    valid = valid_steps(leaf) if {"sample", "time"} <= set(leaf.dims) else None
    norms = norms if valid is None else norms.where(valid)
    names = labels(norms, "direction") if "direction" in norms.dims else [_direction(leaf)]
    made = []
    for place, name in enumerate(names):
        part = norms.isel(direction=place) if "direction" in norms.dims else norms
        made.append(Curve(path, name, band(part)))
    return made


def _of_summary(path: str, leaf: xr.Dataset) -> Iterator[Curve]:
    """Give a curve a state: quantiles of two norms do not make those of their joint norm."""
    kept = state_norms(leaf)
    for state, norms in kept.items():
        label = f"{path} · {state}" if len(kept) > 1 else path
        for name, part in parts(norms, ["quantile", "time"]):
            yield Curve(label, name or _direction(leaf), band(part))


def _norms(leaf: xr.Dataset) -> xr.DataArray | None:
    """Norm of the joint state's gradient, else of the output's; None without a time axis."""
    if all(f"{state}_gradient" in leaf for state in states(leaf)):
        return _exp(log_state_gradient(leaf))
    gradient = leaf.get("output_gradient")
    if gradient is None or "time" not in gradient.dims:
        return None
    dims = [str(dim) for dim in gradient.dims if dim not in ("sample", "time", "direction")]
    return _exp(log_norm(gradient, *dims))


def _exp(logs: xr.DataArray) -> xr.DataArray:
    with np.errstate(over="ignore", under="ignore"):
        return logs.copy(data=np.exp(logs.values))


def _direction(leaf: xr.Dataset) -> str:
    return "backward" if leaf.attrs.get("go_backwards") else "forward"


def _axes(found: list[Curve], every: list[tuple[str, xr.Dataset]], scale: Scale) -> tuple[Axis, Axis]:
    """Time of the longest layer, with its labels, and the norm of the hidden state or of several."""
    longest = max((leaf for _, leaf in every), key=lambda leaf: int(leaf.sizes.get("time", 0)))
    steps = max(len(curve.quantiles[1]) for curve in found)
    symbol = "‖dL/dhₜ‖" if all(tuple(states(leaf)) == ("hidden",) for _, leaf in every) else "‖dL/dsₜ‖"
    words = {"log10": ", log scale", "signed_log": ", signed log scale"}.get(scale.kind, "")
    x = time_axis(longest, steps, "timestep of the layer's input")
    return x, Axis(f"{symbol}{words}", (-0.04, 1.06), scale.ticks())


def _marks(curves: list[Curve], scale: Scale, shades: dict[str, str]) -> tuple[Mark, ...]:
    marks: list[Mark] = []
    for curve in curves:
        low, middle, high = scale.clipped(curve.quantiles[0]), *map(scale.curve, curve.quantiles[1:])
        x, color = np.arange(float(len(middle))), shades[curve.layer]
        marks.append(Band(x, low, high, color, 0.15))
        details = (("timestep", x), ("value", curve.quantiles[1]))
        marks.append(Line(x, middle, color, 1.7, label=curve.layer, details=details))
    return tuple(marks)
