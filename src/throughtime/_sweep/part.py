"""`Part`: the reduced capture of one shard; the parts of a data set add up to the whole.

Sums and counts add, certificates keep the worst, norms through time and gradient ratios are sketched.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from throughtime._capture.label import Captured, Leaf
from throughtime._errors import SweepError
from throughtime._monitor.arrays import Array, Reduced, arrays_of
from throughtime._monitor.levels import KEPT_DIMS, QUANTILES, SCALARS, THROUGH_TIME, weight_names
from throughtime._monitor.reduce import (
    is_certified,
    log_ratios,
    norm,
    saturation_counts,
    saturation_shares,
    where_valid,
)
from throughtime._tree import states
from throughtime.adapters.records import SUM
from throughtime.diagnostics.checks import dtype_of

from .sketch import Sketch

Values = npt.NDArray[Any]
_SEPARATOR = "|"  # between a layer's path and a name: no path has it
_SATURATION = ("left", "right", "steps")
_USE = ("use_changes", "use_before")
_PADDED = "Pad all shards to the same number of steps, with a mask."


@dataclass(frozen=True)
class Part:
    """One shard, or several, of a data set at one checkpoint.

    Keys are `layer|name`. `labels` has the dims of every array and the coordinates and attributes of layers.

    Attributes
    ----------
    labels : dict
        As JSON keeps it.
    samples : int
    sums, worst, kept : dict of str to ndarray
        Arrays that are added up, that keep the largest value, and that are the same in every part.
    sketches : dict of str to Sketch
    rows : dict of str to ndarray (sample, …)
        Small numbers of each sample.
    """

    labels: dict[str, Any]
    samples: int
    sums: dict[str, Values] = field(default_factory=dict)
    worst: dict[str, Values] = field(default_factory=dict)
    kept: dict[str, Values] = field(default_factory=dict)
    sketches: dict[str, Sketch] = field(default_factory=dict)
    rows: dict[str, Values] = field(default_factory=dict)

    def __add__(self, other: Part) -> Part:
        if self._shapes() != other._shapes():
            raise SweepError(f"Shards differ in {self._difference(other)}. {_PADDED}")
        return Part(
            self.labels,
            self.samples + other.samples,
            {key: value + other.sums[key] for key, value in self.sums.items()},
            {key: np.fmax(value, other.worst[key]) for key, value in self.worst.items()},
            self.kept,
            {key: value + other.sketches[key] for key, value in self.sketches.items()},
            {key: np.concatenate([value, other.rows[key]]) for key, value in self.rows.items()},
        )

    def add_use(self, path: str, lags: Sequence[int], changes: Values, before: Values) -> None:
        """Add what the samples of a layer's batch lose more with exchanged inputs, see `diagnosis.swap`."""
        self.labels["lags"] = list(lags)
        self.rows.update({_key(path, name): each for name, each in zip(_USE, (changes, before), strict=True)})

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        arrays = {**self.sums, **self.worst, **self.kept}
        shapes = {key: value.shape for key, value in arrays.items()}
        shapes |= {key: value.shape for key, value in self.sketches.items()}
        return shapes | {key: value.shape[1:] for key, value in self.rows.items()}

    def _difference(self, other: Part) -> str:
        mine, theirs = self._shapes(), other._shapes()
        key = next(key for key in (*mine, *theirs) if mine.get(key) != theirs.get(key))
        path, name = key.split(_SEPARATOR)
        found = [f"shape {shapes[key]}" if key in shapes else "absent" for shapes in (mine, theirs)]
        return f"{name} of {path.strip('/')}: {found[0]} in one, {found[1]} in another"


def part_of(captured: Captured) -> Part:
    """Reduce the capture of one shard, whose samples count alike in a mean loss over the data set."""
    is_sum = captured.attributes.get("loss_reduction") == SUM
    leaves = {path: leaf.layout for path, leaf in captured.leaves.items()}
    labels = {"leaves": {path: _labels(layout) for path, layout in leaves.items()}, "dims": {}}
    labels["attributes"] = {name: _plain(value) for name, value in captured.attributes.items()}
    samples = max(layout.sizes.get("sample", 0) for layout in leaves.values())
    part = Part(labels, samples)
    with np.errstate(all="ignore"):
        for path, leaf in captured.leaves.items():
            _add(part, path, leaf, 1 if is_sum else samples)
    return part


def _labels(layout: xr.Dataset) -> dict[str, Any]:
    bare = layout.drop_vars(list(layout.data_vars))
    if "gate_activation" in layout:
        bare.attrs["dtype"] = dtype_of(layout)  # by which the certificate is judged
    text = json.dumps(bare.to_dict(), default=_plain)
    variables = {str(name): dict(layout[name].attrs) for name in layout.data_vars}
    return {"layout": json.loads(text), "variables": json.loads(json.dumps(variables, default=_plain))}


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") and np.ndim(value) == 0 else value


def _key(path: str, name: str) -> str:
    return f"{path}{_SEPARATOR}{name}"


def _add(part: Part, path: str, leaf: Leaf, weight: int) -> None:
    """Add one layer of a shard, its loss and weight gradients multiplied by a weight."""
    arrays = arrays_of(leaf)

    def take(place: dict[str, Values], name: str, array: Array) -> None:
        place[_key(path, name)] = np.asarray(array.values, np.float64)
        part.labels["dims"][_key(path, name)] = list(array.dims)

    def sketch(name: str, logarithms: Array) -> None:
        part.sketches[_key(path, name)] = Sketch.of(logarithms.values)
        part.labels["dims"][_key(path, name)] = list(logarithms.dims[1:])

    for name in SCALARS:
        if name == "loss" and name in arrays:
            take(part.sums, name, Array((), arrays[name].values * weight))
        elif name in arrays and name != "reduction_factor":
            take(part.worst, name, arrays[name])
    for name, logarithms in _through_time(leaf, arrays):
        sketch(name, logarithms)
    for name in weight_names(leaf):
        gradient = arrays[f"{name}_gradient"]
        take(part.sums, f"{name}_gradient", Array(gradient.dims, gradient.values * weight))
        take(part.kept, f"{name}_norm", norm(arrays[name], ("direction", "gate")))
    if "gate_activation" in arrays:
        counts = saturation_counts(arrays, leaf.layout)
        for name in _SATURATION:
            take(part.sums, f"saturation_{name}", counts[name])


def _through_time(leaf: Leaf, arrays: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
    """Yield logarithms of norms, of the gradient ratio by lag, and of its largest value: (sample, …)."""
    names = [f"{state}_gradient" for state in states(leaf.layout)]
    for name in (*THROUGH_TIME, *names):
        if name in arrays:
            norms = where_valid(norm(arrays[name], KEPT_DIMS), arrays.get("valid")).ordered("sample")
            yield f"{name}_norm", Array(norms.dims, np.log(norms.values))
    if any(name in arrays for name in names):
        ratios = log_ratios(arrays, leaf.layout)
        yield "lag_ratio", ratios
        largest = np.fmax.reduce(ratios.values, axis=-1)
        yield "growth", Array(ratios.dims[:-1], largest)


def reduced(part: Part) -> Reduced:
    """Return the summary of everything that was added up, as a monitor's record has it."""
    found: dict[str, dict[str, Array]] = {path: {} for path in part.labels["leaves"]}
    with np.errstate(all="ignore"):
        for key, array in _arrays(part):
            path, name = key.split(_SEPARATOR)
            found[path][name] = array
        for path, arrays in found.items():
            _finish_saturation(arrays, _layout(part, path))
    return found


def _arrays(part: Part) -> Iterator[tuple[str, Array]]:
    dims = {key: tuple(each) for key, each in part.labels["dims"].items()}
    is_sum = part.labels["attributes"].get("loss_reduction") == SUM
    for key, value in part.sums.items():
        of_loss = key.endswith(("_gradient", f"{_SEPARATOR}loss"))
        mean = value / part.samples if of_loss and not is_sum else value
        if not key.endswith("_gradient"):
            yield key, Array(dims[key], mean)
        else:
            size = norm(Array(dims[key], mean), ("direction", "gate"))
            yield f"{key}_norm", size
            yield (
                f"{key.removesuffix('_gradient')}_change",
                Array(size.dims, np.full(size.values.shape, np.nan)),
            )
    for key, value in {**part.worst, **part.kept}.items():
        yield key, Array(dims[key], value)
    for path in part.labels["leaves"]:
        if _key(path, "loss") in part.sums:
            yield _key(path, "reduction_factor"), Array((), np.asarray(1.0 if is_sum else 1 / part.samples))
    for key, sketch in part.sketches.items():
        yield from _quantiles(key, sketch, dims[key])


def _quantiles(key: str, sketch: Sketch, dims: tuple[str, ...]) -> Iterator[tuple[str, Array]]:
    path, name = key.split(_SEPARATOR)
    if name not in ("lag_ratio", "growth"):
        rows = [np.exp(sketch.quantile(each)) for each in QUANTILES]
        yield key, Array(("quantile", *dims), np.stack(rows))
        return
    middle, low, high = (Array(dims, np.exp(each)) for each in sketch.median_interval())
    if name == "growth":
        yield key, middle
        yield _key(path, "growth_low"), Array(dims, np.where(sketch.samples == 1, middle.values, low.values))
        return
    counts = Array(dims, sketch.samples)
    for end, array in {"": middle, "_low": low, "_high": high, "_samples": counts}.items():
        yield f"{key}{end}", array.ordered("lag")


def _finish_saturation(arrays: dict[str, Array], layout: xr.Dataset) -> None:
    """Put shares in the place of counts."""
    if "saturation_steps" not in arrays:
        return
    counts = {name: arrays.pop(f"saturation_{name}") for name in _SATURATION}
    shares = saturation_shares(counts, certified=is_certified(arrays, layout))
    arrays.update({f"saturation_{side}": share for side, share in shares.items()})


def _layout(part: Part, path: str) -> xr.Dataset:
    return xr.Dataset.from_dict(part.labels["leaves"][path]["layout"])


def use_rows(part: Part, path: str) -> dict[str, Values]:
    """Return what the samples of all shards lose more with exchanged inputs; empty if not measured."""
    return {name: part.rows[_key(path, name)] for name in _USE if _key(path, name) in part.rows}


def labelled(part: Part) -> Captured:
    """Return coordinates and attributes of the layers, with which the summary is labelled."""
    leaves = {}
    for path, labels in part.labels["leaves"].items():
        layout = _layout(part, path)
        empty = {name: xr.Variable((), np.nan, attrs) for name, attrs in labels["variables"].items()}
        leaves[path] = Leaf(layout.assign(empty), {})
    return Captured(leaves, part.labels["attributes"])
