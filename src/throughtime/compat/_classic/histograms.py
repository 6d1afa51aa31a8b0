"""Sort values into panels and count them for `show_features_hist`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from throughtime._common.text.printable import Printable
from throughtime._errors import FeatureError
from throughtime.compat._classic.data import (
    Values,
    as_array,
    channels_last,
    is_labelled,
    labels,
    number_names,
)

NOT_CHANNELS = ("sample", "batch", "time")


@dataclass(frozen=True)
class Bars(Printable):
    """The histogram of one panel."""

    name: str
    counts: Values
    edges: Values
    values: Values
    clipped: tuple[int, ...] = ()  # clipped bins, highest first
    ceiling: float = 1.0  # height of clipped bins

    @property
    def limits(self) -> tuple[float, float]:
        """Left end of the first bar and right end of the last one."""
        return float(self.edges[0]), float(self.edges[-1])

    @property
    def heights(self) -> Values:
        return np.minimum(self.counts, self.ceiling) if self.clipped else self.counts


def groups(data: Any, by: str | None, channel_axis: int) -> dict[str, Values]:
    """Return the values of each panel, by name."""
    arrays = _arrays(data)
    if arrays is not None and by in (None, "array"):
        if not arrays:
            raise FeatureError("The data are empty. Pass at least one array.")
        return {name: as_array(array).ravel() for name, array in arrays.items()}
    if isinstance(data, Mapping):
        raise FeatureError(f"by={by!r} requires a single array. Pass by=None for one panel per array.")
    array = as_array(data)
    if by == "array" or (by is None and array.ndim == 1):
        return {"": array.ravel()}
    if is_labelled(data):
        return _by_dims(data, by)
    if by not in (None, "channel"):
        raise FeatureError(
            f"by={by!r}: expected 'channel' (one panel each), 'array' (one panel), None, or a dim."
        )
    channels = np.moveaxis(channels_last(array, channel_axis), -1, 0)
    return dict(zip(number_names(len(channels)), channels.reshape(len(channels), -1), strict=True))


def _arrays(data: Any) -> dict[str, Any] | None:
    """Return several arrays by name, or None if `data` is one array."""
    if isinstance(data, Mapping):
        return {str(name): array for name, array in data.items()}
    if not isinstance(data, list | tuple) or not all(hasattr(item, "shape") for item in data):
        return None
    names = [str(getattr(item, "name", None) or index) for index, item in enumerate(data)]
    unique = names if len(set(names)) == len(names) else number_names(len(data))
    return dict(zip(unique, data, strict=True))


def _by_dims(data: Any, by: str | None) -> dict[str, Values]:
    dims = [dim for dim in data.dims if dim not in NOT_CHANNELS]
    if by in data.dims:
        dims = [by]
    elif by not in (None, "channel"):
        raise FeatureError(f"by={by!r}: the data have no such dim, only {', '.join(map(str, data.dims))}.")
    elif len(dims) == data.ndim or not dims:  # weights: otherwise every entry would be a channel
        return {"": as_array(data).ravel()}
    rest = [dim for dim in data.dims if dim not in dims]
    names = labels(data, dims)
    array = as_array(data.transpose(*dims, *rest)).reshape(len(names), -1)
    return dict(zip(names, array, strict=True))


def histograms(
    names: Sequence[str],
    arrays: Sequence[Values],
    bins: Any,
    limits: Sequence[tuple[float, float]],
    peaks: int,
) -> list[Bars]:
    """Count every panel's finite values between its limits."""
    return [
        _clip(_count(name, values, bins, span), int(peaks))
        for name, values, span in zip(names, arrays, limits, strict=True)
    ]


def _count(name: str, values: Values, bins: Any, limits: tuple[float, float]) -> Bars:
    finite = values[np.isfinite(values)]
    try:
        counts, edges = np.histogram(finite, np.histogram_bin_edges(finite, bins, range=limits))
    except Exception as error:  # NumPy may raise anything
        raise FeatureError(
            f"bins={bins!r}: expected a number of bars, 1 or more, rising edges, or a rule such as 'auto' "
            f"({error})."
        ) from error
    return Bars(name, counts.astype(np.float64), edges.astype(np.float64), values)


def _clip(bars: Bars, peaks: int) -> Bars:
    """Clip the highest bars to the height of the next one; at least one bar stays whole."""
    order = np.argsort(-bars.counts, kind="stable")
    order = order[bars.counts[order] > 0]
    peaks = min(peaks, len(order) - 1)
    if peaks < 1:
        return bars
    ceiling = bars.counts[order[peaks]]
    cut = tuple(int(place) for place in order[:peaks] if bars.counts[place] > ceiling)
    return Bars(bars.name, bars.counts, bars.edges, bars.values, cut, float(ceiling))


def ranges(
    arrays: Sequence[Values], xlims: tuple[float, float] | None, *, center_zero: bool, equate: bool
) -> list[tuple[float, float]]:
    """Return the limits of x for every panel."""
    everything = np.concatenate(arrays)
    return [xlims or _range(everything if equate else values, center_zero) for values in arrays]


def _range(values: Values, center_zero: bool) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if center_zero:
        low, high = -max(-low, high), max(-low, high)
    if low == high:  # a single value: its bar needs a width
        margin = 0.1 * abs(low) or 1.0
        return low - margin, high + margin
    return low, high


def shares(values: Values, limits: tuple[float, float] | None = None) -> str:
    """Format the shares of values that are exactly zero, NaN, Inf, or outside `limits`, if there are any.

    >>> shares(np.array([0.0, 1.0, np.nan, 2.0]))
    '25% zero, 25% NaN'
    """
    counts = {
        "zero": int((values == 0).sum()),
        "NaN": int(np.isnan(values).sum()),
        "Inf": int(np.isinf(values).sum()),
    }
    if limits is not None:
        finite = np.isfinite(values)
        counts["outside"] = int((finite & ((values < limits[0]) | (values > limits[1]))).sum())
    return ", ".join(f"{_percent(count / values.size)} {name}" for name, count in counts.items() if count)


def _percent(share: float) -> str:
    return "<0.1%" if share < 0.001 else f"{100 * share:.3g}%"
