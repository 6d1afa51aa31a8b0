"""Finds the first number of a capture that meets a condition, in the order of computation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from throughtime._errors import SchemaError
from throughtime._tree import Layer, keeps_norms, states
from throughtime._vocabulary import VARIABLES, WEIGHTS, as_known
from throughtime.diagnostics.lags import runs_backward, valid_steps

# In the order of computation. A pass goes through time, and at each step through these variables in turn.
_FORWARD = ("input", "gate_activation", "cell", "hidden", "output")
_BACKWARD = ("output_gradient", "hidden_gradient", "cell_gradient", "gate_gradient", "input_gradient")
_LAST = (
    *("initial_hidden_gradient", "initial_cell_gradient", "step_contribution", "lag_matrix"),
    *(f"{weight}_gradient" for weight in WEIGHTS),
)
_READ_FIRST = ("input", "output_gradient")  # by a layer of two directions

_Key = tuple[int, ...]


def leaves(captured: Layer) -> dict[str, xr.Dataset]:
    """Return the layers of a capture by their paths; "" for a Dataset. SchemaError for anything else."""
    if isinstance(captured, xr.Dataset):
        return {"": captured}
    if not isinstance(captured, xr.DataTree):
        raise SchemaError(f"Expected a capture, a layer or a Dataset, got {type(captured).__name__}.")
    return {node.path: node.to_dataset() for node in captured.leaves if node.data_vars}


def name_of(path: str) -> str:
    """Return the name of a layer in a sentence."""
    return path.strip("/") or "this layer"


def listed(where: Mapping[str, int | str]) -> str:
    """List the labels of a place: `sample 1, time 7`."""
    return ", ".join(f"{dim} {place}" for dim, place in where.items())


@dataclass(frozen=True)
class FirstPlace:
    """The place of one number: `labels` by dim, or indices where a dim has none; `index` without labels."""

    path: str
    variable: str
    labels: Mapping[str, int | str]
    index: Mapping[str, int]


def first_place(
    captured: Layer, marked: Callable[[str, str, xr.DataArray], xr.DataArray]
) -> FirstPlace | None:
    """Find the first marked number of a capture: by training step, then in the order of computation.

    `marked` (path, name, values) returns which values of a variable count. Masked steps are skipped.
    """
    found = [
        each
        for number, (path, layer) in enumerate(leaves(captured).items())
        for each in _candidates(number, path, layer, marked)
    ]
    return min(found, key=lambda each: each[0])[1] if found else None


def _candidates(
    number: int, path: str, layer: xr.Dataset, marked: Callable[[str, str, xr.DataArray], xr.DataArray]
) -> Iterator[tuple[_Key, FirstPlace]]:
    """Yield the first marked number of each variable, with its place in the order."""
    for name, values in layer.data_vars.items():
        place = _phase(_word(str(name), layer), number)
        if place is None or values.dtype.kind not in "fcV":
            continue
        broken = marked(path, str(name), values)
        if "time" in values.dims:
            broken = broken & valid_steps(layer)
        if not bool(broken.any()):
            continue
        (phase, rank), where = place, _find_first(str(name), broken.transpose(*values.dims), layer, place[0])
        position, labels, index = where
        yield (position[0], *phase, position[1], rank), FirstPlace(path, str(name), labels, index)


def _word(name: str, layer: xr.Dataset) -> str:
    """Return the schema's name for a norm, a mark, or a state or weight that a cell names otherwise."""
    if "quantile" not in layer[name].dims:  # there, samples that are not finite are left out
        name = name.removesuffix("_norm")
    weight = name.removesuffix("_gradient")
    if weight in layer.attrs.get("weights", "").split(", "):
        return f"kernel{name[len(weight) :]}"
    known = as_known(name, states(layer))
    if known in VARIABLES or keeps_norms(layer) or "time" not in layer[name].dims:
        return known
    return "gate_gradient" if name.endswith("_gradient") else "gate_activation"  # a marked tensor


def _phase(name: str, number: int) -> tuple[_Key, int] | None:
    """Return the pass of a variable and its rank within a step; None if the variable is not searched."""
    for phase, names in enumerate((WEIGHTS, _FORWARD, ("loss",), _BACKWARD, _LAST)):
        if name in names:
            backward = phase >= 3
            return (phase, -number if backward else number), names.index(name)
    return None


def _find_first(
    name: str, broken: xr.DataArray, layer: xr.Dataset, phase: _Key
) -> tuple[_Key, dict[str, int | str], dict[str, int]]:
    """Return the first place: its training step and position in the pass, its labels and indices."""
    dims = [str(dim) for dim in broken.dims]
    if not dims:
        return (0, 0), {}, {}
    places = dict(zip(dims, np.nonzero(broken.values), strict=True))
    none = np.zeros(len(places[dims[0]]), dtype=np.intp)
    step = places.get("step", none)
    backward = phase[0] >= 3
    # A variable without time comes from the last step, and its gradient is computed first.
    ends = none if backward else none + layer.sizes.get("time", 0)
    time = _processing_position(name, places, layer, backward=backward) if "time" in places else ends
    first = int(np.lexsort([*reversed(list(places.values())), time, step])[0])
    index = {dim: int(each[first]) for dim, each in places.items()}
    labels = {dim: _label(layer, dim, place) for dim, place in index.items()}
    return (int(step[first]), int(time[first])), labels, index


def _processing_position(
    name: str, indices: Mapping[str, npt.NDArray[np.intp]], layer: xr.Dataset, *, backward: bool
) -> npt.NDArray[np.intp]:
    """Position of each time index in the order of the pass."""
    time, last = indices["time"], layer.sizes["time"] - 1
    flipped = np.asarray(runs_backward(layer)) ^ backward
    if flipped.ndim == 0:
        return np.asarray(last - time if flipped else time)
    positions = np.where(flipped[:, None], last - time, time)  # (direction, place)
    if "direction" in indices:
        return np.asarray(positions[indices["direction"], np.arange(len(time))])
    # The first direction to arrive reads a shared input; the second completes a shared result.
    return np.asarray(positions.min(axis=0) if name in _READ_FIRST else positions.max(axis=0))


def _label(layer: xr.Dataset, dim: str, index: int) -> int | str:
    names = layer.coords.get(dim)
    return index if names is None or names.dtype.kind in "iufb" else str(names.values[index])
