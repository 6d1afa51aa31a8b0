"""`scatter`: one number for each sample and unit, for variables without a time axis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Unpack

import numpy as np
import xarray as xr

from throughtime._errors import PictureError
from throughtime._inputs import takes
from throughtime.diagnostics.statistics import quantiles
from throughtime.picture import Axis, Dots, Line, Mark, Panel, Picture, Rectangles
from throughtime.picture._drawing.scale import Array, number
from throughtime.picture._drawing.theme import DISTINCT
from throughtime.picture._render.keys import MARKERS, NONFINITE
from throughtime.plots.colored import Fitted, fitted, own_scale
from throughtime.plots.data import Captured, Source, count, dim_called, parts, read, subject, title, unit_dim
from throughtime.plots.look import Look, checked, finished

NOTE = "A dot is one sample; dots of one unit are spread sideways, and the dash is their median."


@takes(PictureError)
def scatter(captured: Captured, quantity: str = "output_gradient", **look: Unpack[Look]) -> Picture:
    """Draw a dot for each sample and unit: the last step of a layer, or initial states.

    Parameters
    ----------
    captured : capture with one layer, a layer, or DataArray (sample, unit)
    quantity : str
        A variable of the layer without time axis. Nothing to a DataArray.
    **look
        See `tt.plots.Look`: limits, share, scale, cmap, title, width, height. With `share=False` each sample
        is divided by its largest magnitude.

    Raises
    ------
    PictureError
        The values have a time axis, or no samples or units.

    Examples
    --------
    >>> from throughtime import testing
    >>> picture = scatter(testing.decaying(samples=3))
    >>> dict(picture.panels[0].of(Dots)[0].details)["value"].shape  # 3 samples × 4 units
    (12,)
    """
    source, look = read(captured, quantity).latest(), checked(look)
    values = source.values
    if "time" in values.dims:
        raise PictureError(
            f"{source.name} has a time axis. Choose a step, tree['{source.where or 'lstm'}']['{source.name}']"
            ".isel(time=-1), or take tt.plots.lines or tt.plots.heatmap."
        )
    unit = unit_dim(values) or "unit"
    dims = [dim_called(values, each, "an axis of scatter") for each in ("sample", unit)]
    if look.get("share") is False:
        values = values.copy(data=own_scale(values.values, (values.get_axis_num(unit),)))
    kind = look.get("scale") or ("signed_log" if source.is_gradient else "linear")
    fit = fitted(source, values.values, Look(**{**look, "scale": kind}))
    panels = tuple(
        Panel(
            tuple(_marks(part.transpose(*dims), fit)),
            title=name,
            x=Axis(dims[1].replace("_", " "), (-0.5, part.sizes[dims[1]] - 0.5)),
            y=Axis(fit.label, (-0.05, 1.12), fit.scale.ticks()),
        )
        for name, part in parts(values, dims)
    )
    titles = _found(source), _title(source, values, dims, fit)
    return finished(Picture(panels, note=NOTE, linked="xy"), look, titles, (9.0, 1.0 + 3.0 * len(panels)))


def _found(source: Source) -> str:
    """Describe the median size of a gradient, or that it is 0."""
    sizes = np.abs(source.values.values[np.isfinite(source.values.values)])
    if not source.is_gradient or not sizes.size:
        return ""
    if not sizes.any():
        return f"{subject(source.where)} is exactly 0 everywhere"
    return f"Median {source.magnitude} of {source.where or 'the layer'} is {number(float(np.median(sizes)))}"


def _marks(values: xr.DataArray, fit: Fitted) -> Iterator[Mark]:
    numbers = np.asarray(values.values, dtype=np.float64)
    samples, units = numbers.shape
    position = np.clip(fit.scale.position(numbers), 0.0, 1.0)
    yield from _ground(fit, units)
    spread = np.linspace(-0.3, 0.3, samples) if samples > 1 else np.zeros(1)
    x = np.arange(units) + spread[:, None]
    yield _dots((x, position), numbers, np.isfinite(numbers), color=DISTINCT[0])
    yield _medians(numbers, fit)
    words = {"nan": "NaN", "positive_infinity": "+∞", "negative_infinity": "−∞"}
    for kind, test in NONFINITE.items():
        if (broken := test(numbers)).any():
            style = {"color": DISTINCT[1], "marker": MARKERS[kind], "label": f"{broken.sum()} {words[kind]}"}
            yield _dots((x, np.full_like(x, 1.07)), numbers, broken, **style)


def _ground(fit: Fitted, units: int) -> Iterator[Mark]:
    """Draw zero, and the band around it that is below the numerical floor."""
    zero = 0.0 if fit.scale.kind == "log10" else float(fit.scale.position(np.zeros(1))[0])
    ends = np.array([-0.5, units - 0.5])
    if fit.scale.kind == "signed_log":
        yield Rectangles(np.array([[ends[0], zero - 0.012, ends[1], zero + 0.012]]), fill="#e2e2e2")
    yield Line(ends, np.full(2, zero), color="#9a9a9a", width=0.7)


def _dots(at: tuple[Array, Array], numbers: Array, chosen: Array, **style: Any) -> Dots:
    sample, unit = np.nonzero(chosen)
    details = (("sample", sample), ("unit", unit), ("value", numbers[chosen]))
    x, y = (each[chosen] for each in at)
    return Dots(x, y, size=4.5 if chosen.size < 3000 else 2.5, alpha=0.65, details=details, **style)


def _medians(numbers: Array, fit: Fitted) -> Line:
    (middle,) = quantiles(np.where(np.isfinite(numbers), numbers, np.nan), (0.5,))
    x = np.arange(len(middle))[:, None] + np.array([-0.4, 0.4, np.nan])
    y = np.clip(fit.scale.position(middle), 0.0, 1.0)
    return Line(x.ravel(), np.repeat(y, 3), color="#222222", width=1.2)


def _title(source: Source, values: xr.DataArray, dims: list[str], fit: Fitted) -> str:
    parts_of_title = [
        count(values.sizes[dims[0]], "sample"),
        count(values.sizes[dims[1]], dims[1].replace("_", " ")),
    ]
    symbol = source.symbol_on(fit.scale)
    return title(source.with_values(values), *parts_of_title, symbol=symbol)
