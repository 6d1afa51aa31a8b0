"""Parts that many plots share: a median with its band, the outline of a histogram, an image, norms."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from throughtime.diagnostics.lags import log_norm
from throughtime.picture import Band, Image, Line, Mark
from throughtime.picture._drawing.colors import Colors
from throughtime.picture._drawing.scale import Array, Scale

Details = tuple[tuple[str, Array], ...]


def median_band(
    ends: tuple[Array, Array, Array],
    color: str,
    scale: Scale | None = None,
    *,
    labels: tuple[str, str] = ("", ""),
    name: str = "value",
) -> list[Mark]:
    """Draw low end, median and high end at each timestep; `labels` name the band and the line."""
    low, middle, high = ends
    time = np.arange(float(len(middle)))
    details = (("timestep", time), (name, middle))
    if scale is not None:
        low, middle, high = scale.clipped(low), scale.curve(middle), scale.curve(high)
    return [
        Band(time, low, high, color, 0.2, label=labels[0]),
        Line(time, middle, color, 1.8, label=labels[1], details=details),
    ]


def outline(
    edges: Array, shares: Array, color: str, label: str = "", *, top: float = np.inf, base: float = 0.0
) -> list[Mark]:
    """Draw a histogram as a filled outline above `base`, cut at `top`."""
    x, y = np.repeat(edges, 2)[1:-1], np.minimum(base + np.repeat(shares, 2), top)
    return [
        Band(x, np.full_like(y, base), y, color, 0.18),
        Line(x, y, color, 1.3, label=label, details=(("share", np.repeat(shares, 2)),)),
    ]


def whole_image(values: Array, fit: Colors, valid: Array | None = None, rows: Array | None = None) -> Image:
    """Make an image (row, column) whose cells lie on whole numbers."""
    height, width = values.shape
    return Image(values, (-0.5, width - 0.5), (-0.5, height - 0.5), fit, valid, rows=rows)


def norms(
    values: xr.DataArray, kept: Sequence[str] = ("sample", "time", "step", "direction")
) -> xr.DataArray:
    """Return Euclidean norms over all dims that are not kept, in float64."""
    return exponential(log_norm(values, *(str(dim) for dim in values.dims if dim not in kept)))


def exponential(logs: xr.DataArray) -> xr.DataArray:
    """Return the numbers of which these are natural logarithms; ∞ if they are too large."""
    with np.errstate(over="ignore"):
        return logs.copy(data=np.exp(logs.values))
