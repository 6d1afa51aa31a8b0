"""`Part`: the reduced capture of some samples; the parts of a batch or a data set add up to the whole.

Sums and counts add, certificates keep the worst. Norms through time and gradient ratios are sketched, or kept
for each sample.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from throughtime._capture.label import Captured, Leaf, NamedArray
from throughtime._errors import BatchError
from throughtime.adapters.records import SUM
from throughtime.diagnostics.checks import dtype_of

from .levels import OF_WEIGHTS, SCALARS, has_lags, norms_through_time, of_samples, weight_names
from .reduce import log_ratios, norm, saturation_counts
from .sketch import Sketch

Values = npt.NDArray[Any]
SEPARATOR = "|"  # between a layer's path and a name: no path has it
SATURATION = ("left", "right", "steps")
USE = ("use_changes", "use_before")
SHARD = "shard"
_PADDED = "Pad all of them to the same number of steps, with a mask."


@dataclass(frozen=True)
class Part:
    """Some samples: a shard, or several, of a data set, or what one process has of a batch.

    Keys are `layer|name`. `labels` has the dims of every array and the coordinates and attributes of layers,
    as JSON keeps them. `sums` are added up, `worst` keep the largest value, `kept` are the same in every
    part, and `rows` (sample, …) are small numbers of each sample.
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
            raise BatchError(f"Parts of the data differ in {self._difference(other)}. {_PADDED}")
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
        for name, values, dims in zip(USE, (changes, before), (["swapped_lag"], []), strict=True):
            self.rows[key_of(path, name)] = values
            self.labels["dims"][key_of(path, name)] = dims

    def add_shard(self, number: int) -> None:
        """Add the number of the shard to each sample, beside what is kept of it."""
        for path in self.labels["leaves"]:
            self.rows[key_of(path, SHARD)] = np.full(self.samples, number)
            self.labels["dims"][key_of(path, SHARD)] = []

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        arrays = {**self.sums, **self.worst, **self.kept}
        shapes = {key: value.shape for key, value in arrays.items()}
        shapes |= {key: value.shape for key, value in self.sketches.items()}
        return shapes | {key: value.shape[1:] for key, value in self.rows.items()}

    def _difference(self, other: Part) -> str:
        mine, theirs = self._shapes(), other._shapes()
        key = next(key for key in (*mine, *theirs) if mine.get(key) != theirs.get(key))
        path, name = key.split(SEPARATOR)
        found = [f"shape {shapes[key]}" if key in shapes else "absent" for shapes in (mine, theirs)]
        return f"{name} of {path.strip('/')}: {found[0]} in one, {found[1]} in another"


def part_of(captured: Captured, rows: str | None = None) -> Part:
    """Reduce the capture of some samples, which count alike in a mean loss over all samples.

    `rows`, "summary" or "timestep", keeps the samples' numbers for this level; None sketches them, so that a
    part's size does not grow with the samples.
    """
    is_sum = captured.attributes.get("loss_reduction") == SUM
    leaves = {path: leaf.layout for path, leaf in captured.leaves.items()}
    labels = {"leaves": {path: _labels(layout) for path, layout in leaves.items()}, "dims": {}}
    labels["attributes"] = {name: _plain(value) for name, value in captured.attributes.items()}
    samples = max(layout.sizes.get("sample", 0) for layout in leaves.values())
    part = Part(labels, samples)
    with np.errstate(all="ignore"):
        for path, leaf in captured.leaves.items():
            _add(part, path, leaf, 1 if is_sum else samples)
            _add_samples(part, path, leaf, rows)
    return part


def _labels(layout: xr.Dataset) -> dict[str, Any]:
    by_sample = [name for name, each in layout.coords.items() if "sample" in each.dims]
    bare = layout.drop_vars([*layout.data_vars, *by_sample])
    if "gate_activation" in layout:
        bare.attrs["dtype"] = dtype_of(layout)  # by which the certificate is judged
    text = json.dumps(bare.to_dict(), default=_plain)
    variables = {str(name): dict(layout[name].attrs) for name in layout.data_vars}
    return {"layout": json.loads(text), "variables": json.loads(json.dumps(variables, default=_plain))}


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") and np.ndim(value) == 0 else value


def key_of(path: str, name: str) -> str:
    """Name an array of a layer in a part."""
    return f"{path}{SEPARATOR}{name}"


def _add(part: Part, path: str, leaf: Leaf, weight: int) -> None:
    """Add one layer of a shard, its loss and weight gradients multiplied by a weight."""
    arrays = leaf.arrays

    def take(place: dict[str, Values], name: str, array: NamedArray) -> None:
        place[key_of(path, name)] = np.asarray(array.values, np.float64)
        part.labels["dims"][key_of(path, name)] = list(array.dims)

    for name in SCALARS:
        if name == "loss" and name in arrays:
            take(part.sums, name, NamedArray((), arrays[name].values * weight))
        elif name in arrays and name != "reduction_factor":
            take(part.worst, name, arrays[name])
    for name in weight_names(leaf):
        gradient = arrays[f"{name}_gradient"]
        take(part.sums, f"{name}_gradient", NamedArray(gradient.dims, gradient.values * weight))
        take(part.kept, f"{name}_norm", norm(arrays[name], OF_WEIGHTS))
    if "gate_activation" in arrays:
        counts = saturation_counts(arrays, leaf.layout)
        for name in SATURATION:
            take(part.sums, f"saturation_{name}", counts[name])


def _add_samples(part: Part, path: str, leaf: Leaf, rows: str | None) -> None:
    """Add one layer's norms through time and gradient ratios by lag: rows, or sketches of logarithms."""
    for name, array in _sketched(leaf) if rows is None else _by_sample(leaf, rows):
        key, ordered = key_of(path, name), array.ordered("sample")
        part.labels["dims"][key] = list(ordered.dims[1:])
        if rows is None:
            part.sketches[key] = Sketch.of(ordered.values)
        else:
            part.rows[key] = ordered.values


def _by_sample(leaf: Leaf, level: str) -> Iterator[tuple[str, NamedArray]]:
    yield from (of_samples if level == "timestep" else norms_through_time)(leaf)
    if has_lags(leaf):
        yield "lag_ratio", log_ratios(leaf.arrays, leaf.layout)


def _sketched(leaf: Leaf) -> Iterator[tuple[str, NamedArray]]:
    """Yield logarithms of norms, of the gradient ratio by lag, and of its largest value."""
    for name, norms in norms_through_time(leaf):
        yield name, NamedArray(norms.dims, np.log(norms.values))
    if has_lags(leaf):
        ratios = log_ratios(leaf.arrays, leaf.layout)
        yield "lag_ratio", ratios
        yield "growth", NamedArray(ratios.dims[:-1], np.fmax.reduce(ratios.values, axis=-1))
