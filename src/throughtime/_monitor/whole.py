"""Reduces a whole batch or data set, whose parts were added up, to what a run stores."""

from collections.abc import Iterator

import numpy as np
import xarray as xr

from throughtime._capture.label import Captured, Leaf, NamedArray
from throughtime.adapters.records import SUM

from .levels import OF_WEIGHTS, QUANTILES, of_lags
from .part import SATURATION, SEPARATOR, SHARD, USE, Part, Values, key_of
from .reduce import is_certified, norm, sample_quantiles, saturation_shares
from .sketch import Sketch

_NOT_SUMMARIZED = (*USE, SHARD, "valid", "last_step_gradient_norm", "last_step_contribution")


def reduced(part: Part, level: str = "summary") -> dict[str, dict[str, NamedArray]]:
    """Reduce all samples to "summary", or rows to "timestep", as a monitor's record has it."""
    found: dict[str, dict[str, NamedArray]] = {path: {} for path in part.labels["leaves"]}
    with np.errstate(all="ignore"):
        for key, array in (*_arrays(part), *_of_rows(part, level)):
            path, name = key.split(SEPARATOR)
            found[path][name] = array
        for path, arrays in found.items():
            _finish_saturation(arrays, _layout(part, path))
    return found


def _arrays(part: Part) -> Iterator[tuple[str, NamedArray]]:
    dims = {key: tuple(each) for key, each in part.labels["dims"].items()}
    is_sum = part.labels["attributes"].get("loss_reduction") == SUM
    for key, value in part.sums.items():
        of_loss = key.endswith(("_gradient", f"{SEPARATOR}loss"))
        mean = value / part.samples if of_loss and not is_sum else value
        if not key.endswith("_gradient"):
            yield key, NamedArray(dims[key], mean)
        else:
            size = norm(NamedArray(dims[key], mean), OF_WEIGHTS)
            yield f"{key}_norm", size
            name = f"{key.removesuffix('_gradient')}_change"
            yield name, NamedArray(size.dims, np.full_like(size.values, np.nan))
    for key, value in {**part.worst, **part.kept}.items():
        yield key, NamedArray(dims[key], value)
    for path in part.labels["leaves"]:
        if key_of(path, "loss") in part.sums:
            yield (
                key_of(path, "reduction_factor"),
                NamedArray((), np.asarray(1.0 if is_sum else 1 / part.samples)),
            )
    for key, sketch in part.sketches.items():
        yield from _quantiles(key, sketch, dims[key])


def _quantiles(key: str, sketch: Sketch, dims: tuple[str, ...]) -> Iterator[tuple[str, NamedArray]]:
    path, name = key.split(SEPARATOR)
    if name not in ("lag_ratio", "growth"):
        rows = [np.exp(sketch.quantile(each)) for each in QUANTILES]
        yield key, NamedArray(("quantile", *dims), np.stack(rows))
        return
    middle, low, high = (NamedArray(dims, np.exp(each)) for each in sketch.median_interval())
    if name == "growth":
        yield key, middle
        yield (
            key_of(path, "growth_low"),
            NamedArray(dims, np.where(sketch.samples == 1, middle.values, low.values)),
        )
        return
    counts = NamedArray(dims, sketch.samples)
    for end, array in {"": middle, "_low": low, "_high": high, "_samples": counts}.items():
        yield f"{key}{end}", array.ordered("lag")


def _of_rows(part: Part, level: str) -> Iterator[tuple[str, NamedArray]]:
    for key in part.rows:
        path, name = key.split(SEPARATOR)
        if name == "lag_ratio":
            yield from ((key_of(path, each), array) for each, array in of_lags(_row_array(part, key)).items())
        elif level == "timestep":
            yield key, _row_array(part, key)
        elif name not in _NOT_SUMMARIZED:
            yield key, sample_quantiles(_row_array(part, key), QUANTILES)


def ratios_of(part: Part, path: str) -> NamedArray | None:
    """Return the logarithms of each sample's gradient ratio by lag, if a layer has them."""
    key = key_of(path, "lag_ratio")
    return _row_array(part, key) if key in part.rows else None


def _row_array(part: Part, key: str) -> NamedArray:
    return NamedArray(("sample", *part.labels["dims"][key]), part.rows[key])


def _finish_saturation(arrays: dict[str, NamedArray], layout: xr.Dataset) -> None:
    """Put shares in the place of counts."""
    if "saturation_steps" not in arrays:
        return
    counts = {name: arrays.pop(f"saturation_{name}") for name in SATURATION}
    shares = saturation_shares(counts, certified=is_certified(arrays, layout))
    arrays.update({f"saturation_{side}": share for side, share in shares.items()})


def _layout(part: Part, path: str) -> xr.Dataset:
    return xr.Dataset.from_dict(part.labels["leaves"][path]["layout"])


def use_rows(part: Part, path: str) -> dict[str, Values]:
    """Return what the samples of all shards lose more with exchanged inputs; empty if not measured."""
    return {name: part.rows[key_of(path, name)] for name in USE if key_of(path, name) in part.rows}


def labelled(part: Part) -> Captured:
    """Return coordinates and attributes of the layers, with which the reduced arrays are labelled."""
    leaves = {}
    for path, labels in part.labels["leaves"].items():
        layout = _layout(part, path)
        empty = {name: xr.Variable((), np.nan, attrs) for name, attrs in labels["variables"].items()}
        leaves[path] = Leaf(layout.assign(empty), {})
    return Captured(leaves, part.labels["attributes"])
