"""Finds the origin of a NaN or infinity: the first one in the order in which the numbers were computed.

Searches a whole capture; the other measures only exclude and count samples with such values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import xarray as xr

from throughtime._errors import SchemaError
from throughtime._inputs import takes
from throughtime._tree import Layer, keeps_norms, states
from throughtime._vocabulary import VARIABLES, WEIGHTS, as_known
from throughtime.diagnostics.labelled import apply
from throughtime.diagnostics.lags import runs_backward, valid_steps

# In the order of computation. A pass goes through time, and at each step through these variables in turn.
_FORWARD = ("input", "gate_activation", "cell", "hidden", "output")
_BACKWARD = ("output_gradient", "hidden_gradient", "cell_gradient", "gate_gradient", "input_gradient")
_LAST = (
    *("initial_hidden_gradient", "initial_cell_gradient", "step_contribution", "lag_matrix"),
    *(f"{weight}_gradient" for weight in WEIGHTS),
)
_READ_FIRST = ("input", "output_gradient")  # by a layer of two directions


@dataclass(frozen=True)
class NonFinite:
    """One number that is not finite, and its place.

    Attributes
    ----------
    layer : str
        Path in the tree; "" for a Dataset.
    variable : str
    value : float
        NaN, inf or −inf.
    where : mapping of str to int or str
        By dim: an index, or the label if the dim has labels (gate, direction).
    """

    layer: str
    variable: str
    value: float
    where: Mapping[str, int | str] = field(default_factory=dict)

    def __str__(self) -> str:
        places = ", ".join(f"{dim} {place}" for dim, place in self.where.items())
        return f"{self.value} in {self.variable} of {self.layer.strip('/') or 'this layer'}" + (
            f": {places}" if places else ""
        )


@takes(SchemaError)
def first_nonfinite(captured: Layer) -> NonFinite | None:
    """Find the first NaN or infinity of a capture: by training step, then in the order of computation.

    This order is: weights, the forward pass step by step, the loss, the backward pass from the last processed
    step back, weight gradients. Layers come in the order of the tree, in the backward pass in reverse. Masked
    steps are skipped; the first of several samples is reported. A capture does not hold every intermediate
    value (no pre-activations), so "first" means the first in the capture.

    Parameters
    ----------
    captured : a capture with any number of layers, one layer, or Dataset
        Lazy arrays are read one after another.

    Returns
    -------
    NonFinite, or None if all values are finite

    Examples
    --------
    >>> from throughtime import testing
    >>> print(first_nonfinite(testing.nonfinite("cell", sample=1, time=7, unit=2)))
    nan in cell of rnn: sample 1, time 7, unit 2
    """
    leaves = _leaves(captured)
    found = [each for number, leaf in enumerate(leaves.items()) for each in _candidates(number, *leaf)]
    return min(found, key=lambda each: each[0])[1] if found else None


_Key = tuple[int, ...]


def _leaves(captured: Layer) -> dict[str, xr.Dataset]:
    if isinstance(captured, xr.Dataset):
        return {"": captured}
    if not isinstance(captured, xr.DataTree):
        raise SchemaError(f"Expected a capture, a layer or a Dataset, got {type(captured).__name__}.")
    return {node.path: node.to_dataset() for node in captured.leaves if node.data_vars}


def _candidates(number: int, path: str, layer: xr.Dataset) -> Iterable[tuple[_Key, NonFinite]]:
    """Yield the first number of each variable that is not finite, with its place in the order."""
    for name, values in layer.data_vars.items():
        place = _phase(_word(str(name), layer), number)
        if place is None or values.dtype.kind not in "fcV":
            continue
        broken: xr.DataArray = ~apply(np.isfinite, values, types=[bool])
        if "time" in values.dims:
            broken = broken & valid_steps(layer)
        if not bool(broken.any()):
            continue
        (phase, rank), where = place, _find_first(str(name), broken.transpose(*values.dims), layer, place[0])
        position, labels, index = where
        value = float(np.asarray(values.isel(index)))
        yield (position[0], *phase, position[1], rank), NonFinite(path, str(name), value, labels)


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
