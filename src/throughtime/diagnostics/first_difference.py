"""Finds the first number that differs between two captures of one batch, in the order of computation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from throughtime._errors import SchemaError
from throughtime._inputs import takes
from throughtime._inputs.rules import number, optional
from throughtime._tree import Layer
from throughtime._vocabulary import WEIGHTS
from throughtime.diagnostics.labelled import apply
from throughtime.diagnostics.places import first_place, leaves, listed, name_of

_ROUNDING = {"float64": 1e-9, "float16": 1e-2, "bfloat16": 5e-2}
_COARSE = 1e-4  # of others


@dataclass(frozen=True)
class Difference:
    """One number that differs between two captures, and its place.

    Attributes
    ----------
    layer : str
        Path in the first capture; "" for a Dataset.
    variable : str
    first, second : float
        The value in each capture.
    where : mapping of str to int or str
        By dim: an index, or the label if the dim has labels (gate, direction).
    weights : tuple of str
        Weights of this layer that differ, or that only one side has.
    """

    layer: str
    variable: str
    first: float
    second: float
    where: Mapping[str, int | str] = field(default_factory=dict)
    weights: tuple[str, ...] = ()

    def __str__(self) -> str:
        places = f" at {listed(self.where)}" if self.where else ""
        weights = f"; weights that differ: {', '.join(self.weights)}" if self.weights else ""
        values = f"{self.first:.4g} and {self.second:.4g}"
        return f"{self.variable} of {name_of(self.layer)} differs first: {values}{places}{weights}"


@takes(SchemaError, rtol=optional(number(0)))
def first_difference(first: Layer, second: Layer, *, rtol: float | None = None) -> Difference | None:
    """Find the first number in which two captures of the same batch differ, such as those of two frameworks.

    The order is that of computation: the forward pass step by step, then the backward pass from the last
    processed step back. Layers are paired in their order, so their names may differ. Variables that one side
    lacks, or has with other dims (outputs of the last step), are not compared. Weights are only named.

    Parameters
    ----------
    first, second : captures with the same number of layers, single layers, or Datasets
    rtol : float, optional
        Numbers differ if they are further apart than this share of the variable's largest number in `second`.
        By default 1e-9 in float64, 1e-4 in float32, 1e-2 in float16, 5e-2 in bfloat16, by the coarser side.

    Returns
    -------
    Difference, or None if nothing differs
        If several samples differ at the same point of the computation, the first is reported.

    Raises
    ------
    SchemaError
        The captures have different numbers of layers, or a variable has different sizes.

    Examples
    --------
    >>> from throughtime import testing
    >>> usual = testing.decaying(samples=2)
    >>> other = usual.copy(deep=True)
    >>> other["rnn"]["hidden"][1, 7, 2] += 1
    >>> print(first_difference(usual, other).where)
    {'sample': 1, 'time': 7, 'unit': 2}
    """
    ours, theirs = leaves(first), leaves(second)
    if len(ours) != len(theirs):
        raise SchemaError(f"The captures have {len(ours)} and {len(theirs)} layers: pass one layer of each.")
    other = dict(zip(ours, theirs.values(), strict=True))
    bars = {path: _bar(ours[path], other[path]) if rtol is None else rtol for path in ours}

    def differs(path: str, name: str, values: xr.DataArray) -> xr.DataArray:
        theirs = other[path].get(name)
        if name in _weights_of(ours[path]) or theirs is None or {*theirs.dims} != {*values.dims}:
            return xr.zeros_like(values, dtype=bool)
        return _differs(f"{name} of {name_of(path)}", values, theirs, bars[path])

    place = first_place(first, differs)
    if place is None:
        return None
    both = [float(each[place.variable].isel(place.index)) for each in (ours[place.path], other[place.path])]
    weights = _weights(ours[place.path], other[place.path], bars[place.path])
    return Difference(place.path, place.variable, both[0], both[1], place.labels, weights)


def _bar(*layers: xr.Dataset) -> float:
    """Return the error that rounding may make: of the coarsest dtype that was computed or stored in."""
    stored = [values.dtype for layer in layers for values in layer.values() if values.dtype.kind == "f"]
    computed = [layer.attrs.get("dtype", "float64") for layer in layers]
    names = {str(dtype) for dtype in (*stored, *computed)}
    return max(_ROUNDING.get(name, _COARSE) for name in names)


def _weights_of(layer: xr.Dataset) -> list[str]:
    return [*WEIGHTS, *layer.attrs.get("weights", "").split(", ")]


def _differs(what: str, ours: xr.DataArray, theirs: xr.DataArray, rtol: float) -> xr.DataArray:
    """Return where two arrays differ; NaN on both sides is the same."""
    if dict(ours.sizes) != dict(theirs.sizes):
        raise SchemaError(
            f"{what} has sizes {dict(ours.sizes)} and {dict(theirs.sizes)}: capture the same batch."
        )
    bar = rtol * float(np.abs(theirs.where(np.isfinite(theirs), 0)).max())
    bare = theirs.transpose(*ours.dims).drop_vars(list(theirs.coords))

    def apart(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            close = (np.abs(left - right) <= bar) | (left == right)
        found: np.ndarray = ~(close | (np.isnan(left) & np.isnan(right)))
        return found

    found: xr.DataArray = apply(apart, ours.drop_vars(list(ours.coords)), bare, types=[bool])
    return found.assign_coords(ours.coords)


def _weights(ours: xr.Dataset, theirs: xr.Dataset, rtol: float) -> tuple[str, ...]:
    """Name the weights that differ, or that only one side has."""

    def is_same(name: str) -> bool:
        is_common = name in ours and name in theirs and ours[name].shape == theirs[name].shape
        return is_common and not bool(_differs(name, ours[name], theirs[name], rtol).any())

    names = dict.fromkeys((*_weights_of(ours), *_weights_of(theirs)))
    return tuple(name for name in names if (name in ours or name in theirs) and not is_same(name))
