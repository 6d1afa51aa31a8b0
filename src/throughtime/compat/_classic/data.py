"""Converts arrays, tensors, lists and DataArrays to float arrays (sample, time, channel) with names.

The classic functions draw `Features`, which are copies, so that the caller's data cannot change.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from throughtime._common.text.printable import Printable
from throughtime._errors import FeatureError, warn
from throughtime._inputs.structures import to_numpy

Values = NDArray[np.float64]

SAMPLE_DIMS = ("sample", "batch")
BLOCK_DIMS = ("direction", "gate")


@dataclass(frozen=True)
class Features(Printable):
    """Values (sample, time, channel), a name for every index, and the words of a title."""

    values: Values
    samples: tuple[str, ...]
    channels: tuple[str, ...]
    times: Values
    blocks: tuple[str, ...] = ()  # direction or gate of each channel
    name: str = ""
    layer: str = ""
    units: str = ""
    is_labelled: bool = False
    all_steps: int = 0  # number of all steps; `values` may hold only the first ones
    has_time: bool = True

    @property
    def value_name(self) -> str:
        """Label of an axis of values."""
        name = self.name or "value"
        return f"{name} [{self.units}]" if self.units else name


def is_labelled(data: Any) -> bool:
    """Whether `data` names its dimensions as a DataArray does."""
    return hasattr(data, "dims") and hasattr(data, "coords") and not isinstance(data, Mapping)


def as_array(data: Any) -> Values:
    """Copy numbers of any type into a float64 array; refuse what is ragged, empty, complex or no number."""
    if isinstance(data, Mapping):
        names = ", ".join(str(name) for name in data) or "nothing"
        raise FeatureError(
            f"Got a {type(data).__name__}, expected an array of numbers. Pass one of its arrays: {names}."
        )
    try:
        array = _numpy(data)
    except Exception as error:  # the user's object may raise anything
        raise FeatureError(
            f"This {type(data).__name__} is not rectangular ({error}). Pad the samples to one length, or "
            "draw them one by one."
        ) from error
    if array.size == 0:
        raise FeatureError(f"The data are empty: their shape is {array.shape}. Pass at least one value.")
    if array.dtype.kind == "c":
        raise FeatureError(f"The data are complex ({array.dtype}). Draw abs(data), data.real or data.imag.")
    if array.dtype.kind not in "fiub":
        raise FeatureError(
            f"Expected an array of numbers, got a {type(data).__name__} of dtype {array.dtype}. "
            "Convert it first: np.asarray(data, dtype=float)."
        )
    return array.astype(np.float64)


def _numpy(data: Any) -> NDArray[Any]:
    if is_labelled(data):
        return np.asarray(data.values)
    if isinstance(data, list | tuple) and any(
        hasattr(item, "shape") or isinstance(item, list | tuple) for item in data
    ):
        return np.stack([_numpy(item) for item in data])
    if isinstance(data, np.ma.MaskedArray):
        return np.ma.filled(data.astype(np.float64), np.nan)
    return to_numpy(data)


def sequences(data: Any, channel_axis: int = -1, max_timesteps: int | None = None) -> Features:
    """Return the features of (time, channel) or (sample, time, channel) data, cut to `max_timesteps`."""
    if is_labelled(data) and not _is_unnamed(data):
        features = _order_by_name(data, with_time=True)
    else:
        array = _of_rank(
            as_array(data),
            channel_axis,
            ranks=(2, 3),
            wanted="(time, channel) for a sample or (sample, time, channel) for a batch",
        )
        features = _describe(_with_numbers(array if array.ndim == 3 else array[None]), data)
    warn_if_nothing_finite(features.values)
    if max_timesteps is None:
        return features
    values, times = features.values[:, :max_timesteps], features.times[:max_timesteps]
    return replace(features, values=values, times=times, all_steps=features.values.shape[1])


def points(data: Any, channel_axis: int = -1) -> Features:
    """Return the features of (unit,) or (sample, unit) data, with one timestep."""
    if is_labelled(data) and not _is_unnamed(data):
        features = _order_by_name(data, with_time=False)
    else:
        array = as_array(data)
        array = array[None] if array.ndim == 1 else array
        array = _of_rank(array, channel_axis, ranks=(2,), wanted="(unit,) or (sample, unit)")
        features = _describe(_with_numbers(array[:, None, :]), data)
    warn_if_nothing_finite(features.values)
    return replace(features, has_time=False)


def _is_unnamed(data: Any) -> bool:
    return all(str(dim).startswith("dim_") for dim in data.dims)


def _of_rank(array: Values, channel_axis: int, ranks: Sequence[int], wanted: str) -> Values:
    if array.ndim not in ranks:
        fix = {
            1: "Add the missing axis: data[:, None].",
            2: "Use show_features_1D or show_features_2D for sequences.",
            3: "Use show_features_1D or show_features_2D for sequences, or take one step: data[:, -1].",
        }.get(array.ndim, "Take the part to draw by indexing.")
        raise FeatureError(f"Got data of shape {array.shape}, expected {wanted}. {fix}")
    return channels_last(array, channel_axis)


def channels_last(array: Values, channel_axis: Any) -> Values:
    if not -array.ndim <= channel_axis < array.ndim:
        raise FeatureError(f"channel_axis={channel_axis}: the data have no such axis, shape {array.shape}.")
    return np.moveaxis(array, channel_axis, -1)


def _with_numbers(values: Values) -> Features:
    samples, steps, channels = values.shape
    return Features(values, number_names(samples), number_names(channels), np.arange(steps, dtype=np.float64))


def number_names(count: int) -> tuple[str, ...]:
    return tuple(str(index) for index in range(count))


def _describe(features: Features, data: Any) -> Features:
    if not is_labelled(data):
        return features
    name, layer = title_of(data)
    return replace(features, name=name, layer=layer, units=str(data.attrs.get("units", "")), is_labelled=True)


def title_of(data: Any) -> list[str]:
    """Return the name and layer of labelled data."""
    if not is_labelled(data):
        return []
    return [str(data.attrs.get("long_name") or data.name or ""), str(data.attrs.get("layer", "")).strip("/")]


def _order_by_name(data: Any, *, with_time: bool) -> Features:
    """Order the axes of a DataArray by their names; all others are flattened into channels."""
    sample = next((dim for dim in data.dims if dim in SAMPLE_DIMS), None)
    if ("time" in data.dims) != with_time:
        fix = (
            "Rename the axis of time: data.rename(…='time'), or use show_features_0D."
            if with_time
            else "Take one step: data.isel(time=-1)."
        )
        wanted = "a 'time' among them" if with_time else "none called 'time'"
        raise FeatureError(f"Got data with dims {tuple(data.dims)}, expected {wanted}. {fix}")
    rest = [dim for dim in data.dims if dim not in (sample, "time")]
    rest.sort(key=lambda dim: dim not in BLOCK_DIMS)  # forward 0, forward 1, …, backward 0, …
    axes = [*([sample] if sample else []), *(["time"] if with_time else []), *rest]
    array = as_array(data.transpose(*axes))
    samples, times = data.sizes.get(sample, 1), data.sizes.get("time", 1)
    features = Features(
        values=array.reshape(samples, times, -1),
        samples=labels(data, [sample]) if sample else ("0",),
        channels=labels(data, rest),
        times=_times(data) if with_time else np.zeros(1),
        blocks=labels(data, blocks) if (blocks := [dim for dim in rest if dim in BLOCK_DIMS]) else (),
    )
    inner = len(features.channels) // max(1, len(features.blocks))
    return _describe(replace(features, blocks=tuple(np.repeat(features.blocks, inner).tolist())), data)


def labels(data: Any, dims: Sequence[Any]) -> tuple[str, ...]:
    """Return one name for each combination of indices along `dims`, such as "forward 3"."""
    names = [[_label(value) for value in np.asarray(data[dim].values).tolist()] for dim in dims]
    return tuple(" ".join(words) for words in product(*names))


def _label(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _times(data: Any) -> Values:
    """Return the time coordinate if it is evenly spaced, otherwise the index."""
    times = np.asarray(data["time"].values)
    if times.dtype.kind in "iuf":
        steps = np.diff(times.astype(np.float64))
        if np.all(np.isfinite(times)) and (steps > 0).all() and np.allclose(steps, steps[:1]):
            return times.astype(np.float64)
    return np.arange(len(times), dtype=np.float64)


def warn_if_nothing_finite(values: Values) -> None:
    if not np.isfinite(values).any():
        warn(f"No value is finite ({nonfinite_note(values)}); the plot marks only these.")


def nonfinite_note(values: Values) -> str:
    """Count NaN and Inf, such as "3 NaN, 1 Inf"; empty when all are finite.

    >>> nonfinite_note(np.array([1.0, np.nan, -np.inf, np.nan]))
    '2 NaN, 1 Inf'
    """
    counts = {"NaN": int(np.isnan(values).sum()), "Inf": int(np.isinf(values).sum())}
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)
