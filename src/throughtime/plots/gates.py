"""`gates`: activation, saturation and gradient of each gate through time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Unpack

import numpy as np
import xarray as xr

from throughtime._errors import PictureError
from throughtime._inputs import takes
from throughtime._inputs.rules import number
from throughtime._tree import Layer
from throughtime._tree import layer as one_layer
from throughtime.diagnostics.saturation import ends
from throughtime.picture import Axis, Mark, Panel, Picture
from throughtime.picture._drawing.colors import Colors
from throughtime.picture._drawing.scale import Array
from throughtime.picture._drawing.theme import DISTINCT
from throughtime.plots.axes import time_axis
from throughtime.plots.colored import colors
from throughtime.plots.curves import median_band, whole_image
from throughtime.plots.data import (
    Source,
    count,
    dotted,
    last_step,
    located,
    only_valid,
    parts,
    read,
    unit_dim,
    valid_for,
)
from throughtime.plots.look import Look, checked, finished
from throughtime.plots.sentences import percent

LITTLE = 0.01
NOTE = (
    "For each gate: its values; the share of values at the ends of its range, where the slope is flat (an "
    "open forget gate is how memory works, not a fault); and dL/dz, z being its value before the activation."
)


@takes(PictureError, low=number(0, 1), high=number(0, 1))
def gates(
    captured: Layer, *, sample: int | None = None, low: float = 0.1, high: float = 0.9, **look: Unpack[Look]
) -> Picture:
    """Draw activation, saturation and gradient through time, a row for each gate and direction.

    Parameters
    ----------
    captured : capture with one LSTM or GRU, or such a layer, with `gate_activation`
        Without `gate_gradient` its column is left out.
    sample : int, optional
        Draw one sample; by default activations are means, and gradients root mean squares, over samples.
    low, high : float in (0, 1)
        Ends of the range within which a gate is not saturated, as fractions of the whole range.
    **look
        See `tt.plots.Look`: limits and scale of the gradients; title, width, height.

    Raises
    ------
    SchemaError
        The layer has no gates, or there are several layers.

    Examples
    --------
    >>> from throughtime import testing
    >>> from throughtime.picture import Line
    >>> picture = gates(testing.saturated_gates(left=0.5, right=0.25, steps=4))
    >>> [panel.title for panel in picture.panels][:3]
    ['input', 'input · saturated', 'input · gradient']
    >>> dict(picture.panels[1].of(Line)[0].details)["share"]
    array([1., 1., 0., 0.])
    """
    look = checked(look, without=("share", "cmap"))
    dataset = last_step(one_layer(captured))
    activation = _read(_chosen(dataset, sample), "gate_activation")
    gradient = _read(_chosen(dataset, sample), "gate_gradient") if "gate_gradient" in dataset else None
    start, end = ends(dataset)
    position = (only_valid(activation) - start) / (end - start)
    columns = [list(_activations(activation)), list(_saturations(position, low, high))]
    if gradient is not None:
        columns.append(list(_gradients(gradient, look)))
    panels = tuple(panel for row in zip(*columns, strict=True) for panel in row)
    samples = count(int(dataset.sizes.get("sample", 1)), "sample")
    detail = f"sample {sample}" if sample is not None else f"mean over {samples}"
    noun = dotted("gates", located(captured, dataset), detail)
    picture = Picture(panels, columns=len(columns), note=NOTE, linked="x")
    size = 4.6 * len(columns), 1.1 + 2.2 * len(columns[0])
    return finished(picture, look, (_saturated(position, low, high), noun), size)


def _read(dataset: xr.Dataset, name: str) -> Source:
    """Read a variable of the gates; with a projection they are as wide as the cell."""
    source = read(dataset, name)
    unit = unit_dim(source.values) or "unit"
    return source.with_values(source.values.rename({unit: "unit"}))


def _chosen(dataset: xr.Dataset, sample: int | None) -> xr.Dataset:
    if sample is None:
        return dataset
    number = dataset.sizes.get("sample", 0)
    if not -number <= sample < number:
        raise PictureError(f"sample={sample}: this capture has {number}, numbered from 0.")
    return dataset.isel(sample=[sample])


def _activations(source: Source) -> Iterator[Panel]:
    mean = only_valid(source).mean("sample", skipna=True)
    for name, part in parts(mean, ["unit", "time"]):
        own = source.with_values(part, name.rpartition(" ")[2])
        yield _image(source, part, colors(own, part.values, Look()), name)


def _gradients(source: Source, look: Look) -> Iterator[Panel]:
    mean = (only_valid(source).astype(np.float64) ** 2).mean("sample", skipna=True) ** 0.5
    shown = source.with_values(mean, f"rms {source.symbol}")
    fit = colors(shown, mean.values, look)
    for name, part in parts(mean, ["unit", "time"]):
        yield _image(source, part, fit, f"{name} · gradient")


def _image(source: Source, part: xr.DataArray, fit: Colors, name: str) -> Panel:
    values = part.transpose("unit", "time").values
    image = whole_image(values, fit, _any_valid(source, values.shape))
    x, y = time_axis(part, values.shape[1]), Axis("unit", image.y, reversed=True)
    return Panel((image,), title=name, x=x, y=y)


def _any_valid(source: Source, shape: tuple[int, ...]) -> Array | None:
    """Flag the steps at which any sample is valid."""
    valid = valid_for(source, ("sample", "time"))
    return None if valid is None or valid.any(0).all() else np.broadcast_to(valid.any(0), shape)


def _saturations(position: xr.DataArray, low: float, high: float) -> Iterator[Panel]:
    shares = {
        name: (_share(part < low, part), _share(part > high, part))
        for name, part in parts(position, ["sample", "unit", "time"])
    }
    top = min(1.05, max(0.1, 1.15 * float(np.nan_to_num([*shares.values()]).max(initial=0.0))))
    words = (f"below {low:g}", f"above {high:g}")
    for name, both in shares.items():
        marks: list[Mark] = []
        for share, color, word in zip(both, DISTINCT, words, strict=False):
            marks += median_band((np.zeros_like(share), share, share), color, labels=("", word), name="share")
        yield Panel(
            tuple(marks),
            title=f"{name} · saturated",
            x=time_axis(position, position.sizes["time"]),
            y=Axis("share", (-0.05 * top, top)),
            grid=True,
        )


def _saturated(position: xr.DataArray, low: float, high: float) -> str:
    """Name the gate that is most often at an end of its range, and that end."""
    shares = {}
    for name, part in parts(position, ["sample", "unit", "time"]):
        values = part.values[np.isfinite(part.values)]
        if values.size:
            shares[name] = float((values < low).mean()), float((values > high).mean())
    if not shares:
        return ""
    most = max(shares, key=lambda name: sum(shares[name]))
    share, (shut, opened) = sum(shares[most]), shares[most]
    if share < LITTLE:
        return f"Less than {percent(LITTLE)} of the values of every gate are saturated"
    direction, _, gate = most.rpartition(" · ")
    side = f", {'open' if opened > shut else 'shut'}" if gate != "candidate" else ""
    of = f", {direction}" if direction else ""
    return f"{gate.capitalize()} gate{of}: {percent(share)} saturated{side}"


def _share(flags: xr.DataArray, values: xr.DataArray) -> Array:
    """Return the share of units and samples at each step; NaN if none is valid."""
    return np.asarray(flags.astype(float).where(values.notnull()).mean(("sample", "unit")).values)
