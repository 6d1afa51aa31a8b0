"""Sort values into panels and count them: the numbers behind `show_features_hist`, without drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from throughtime._classic.data import (
    Values,
    as_array,
    channels_last,
    is_labelled,
    labels,
    numbered,
)
from throughtime._errors import FeatureError
from throughtime._text.printable import Printable

NOT_CHANNELS = ("sample", "batch", "time")


@dataclass(frozen=True)
class Bars(Printable):
    """The histogram of one panel."""

    name: str
    counts: Values
    edges: Values
    values: Values
    clipped: tuple[int, ...] = ()  # the bins cut down, highest first
    ceiling: float = 1.0  # what they are cut down to

    @property
    def limits(self) -> tuple[float, float]:
        """Where the first bar begins and the last one ends."""
        return float(self.edges[0]), float(self.edges[-1])

    @property
    def heights(self) -> Values:
        """Counts as they are drawn."""
        return np.minimum(self.counts, self.ceiling) if self.clipped else self.counts


def groups(data: Any, by: str | None, channel_axis: int) -> dict[str, Values]:
    """Values of each panel, by name.

    Raises
    ------
    FeatureError
        `by` fits not the data, or they are not numbers.
    """
    arrays = _arrays(data)
    if arrays is not None and by in (None, "array"):
        if not arrays:
            raise FeatureError("The data are empty: no array was passed. Pass at least one.")
        return {name: as_array(array).ravel() for name, array in arrays.items()}
    if isinstance(data, Mapping):
        raise FeatureError(f"by={by!r} is for one array. Pass by=None for one panel an array.")
    array = as_array(data)
    if by == "array" or (by is None and array.ndim == 1):
        return {"": array.ravel()}
    if is_labelled(data):
        return _by_dims(data, by)
    if by not in (None, "channel"):
        raise FeatureError(
            f"by={by!r}: expected 'channel' (a panel each), 'array' (all in one), None, or a dim."
        )
    channels = np.moveaxis(channels_last(array, channel_axis), -1, 0)
    return dict(zip(numbered(len(channels)), channels.reshape(len(channels), -1), strict=True))


def _arrays(data: Any) -> dict[str, Any] | None:
    """Several arrays and their names, or None where `data` is one array."""
    if isinstance(data, Mapping):
        return {str(name): array for name, array in data.items()}
    if not isinstance(data, list | tuple) or not all(hasattr(item, "shape") for item in data):
        return None
    names = [str(getattr(item, "name", None) or index) for index, item in enumerate(data)]
    unique = names if len(set(names)) == len(names) else numbered(len(data))
    return dict(zip(unique, data, strict=True))


def _by_dims(data: Any, by: str | None) -> dict[str, Values]:
    dims = [dim for dim in data.dims if dim not in NOT_CHANNELS]
    if by in data.dims:
        dims = [by]
    elif by not in (None, "channel"):
        raise FeatureError(f"by={by!r} is no dim of these data. They have: {', '.join(map(str, data.dims))}.")
    elif len(dims) == data.ndim or not dims:  # weights: every entry would be a channel of its own
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
    """Count every panel's finite values between its limits.

    Raises
    ------
    FeatureError
        `bins` is not usable.
    """
    return [
        _clipped(_counted(name, values, bins, span), int(peaks))
        for name, values, span in zip(names, arrays, limits, strict=True)
    ]


def _counted(name: str, values: Values, bins: Any, limits: tuple[float, float]) -> Bars:
    finite = values[np.isfinite(values)]
    try:
        counts, edges = np.histogram(finite, np.histogram_bin_edges(finite, bins, range=limits))
    except Exception as error:  # whatever NumPy makes of them
        raise FeatureError(
            f"bins={bins!r}: expected a number of bars from 1 on, edges that rise, or a rule such as 'auto' "
            f"({error})."
        ) from error
    return Bars(name, counts.astype(np.float64), edges.astype(np.float64), values)


def _clipped(bars: Bars, peaks: int) -> Bars:
    """Cut the highest bars to the height of the next one; one bar is always left whole."""
    order = np.argsort(-bars.counts, kind="stable")
    order = order[bars.counts[order] > 0]
    peaks = min(peaks, len(order) - 1)
    if peaks < 1:
        return bars
    ceiling = bars.counts[order[peaks]]
    cut = tuple(int(place) for place in order[:peaks] if bars.counts[place] > ceiling)
    return Bars(bars.name, bars.counts, bars.edges, bars.values, cut, float(ceiling))


def ranges(
    arrays: Sequence[Values], xlims: Any, *, center_zero: bool, equate: bool
) -> list[tuple[float, float]]:
    """Limits of x for every panel.

    Raises
    ------
    FeatureError
        `xlims` are not two rising numbers.
    """
    if xlims is not None:
        return [_pair(xlims)] * len(arrays)
    everything = np.concatenate(arrays)
    return [_range(everything if equate else values, center_zero) for values in arrays]


def _pair(xlims: Any) -> tuple[float, float]:
    low, high = xlims
    if low >= high:
        raise FeatureError(f"xlims={xlims}: expected (low, high) with low < high.")
    return low, high


def _range(values: Values, center_zero: bool) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if center_zero:
        low, high = -max(-low, high), max(-low, high)
    if low == high:  # one value only: give its bar room
        margin = 0.1 * abs(low) or 1.0
        return low - margin, high + margin
    return low, high


def shares(values: Values, limits: tuple[float, float] | None = None) -> str:
    """Say which part is exactly zero, NaN, Inf, or outside `limits`; empty when none is.

    Examples
    --------
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
