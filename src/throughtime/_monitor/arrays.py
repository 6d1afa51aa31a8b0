"""The arrays of a record, by layer and name: their keys in a run, their size, and the labelled tree."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt
import xarray as xr

from throughtime._capture.label import Captured, NamedArray

Values = npt.NDArray[Any]


Arrays = Mapping[str, NamedArray]
Reduced = Mapping[str, Arrays]  # by the layer's path in the tree
_ROOT = {  # variables of a run's root: no node, at any depth, may have such a name (`step` is a dim as well)
    "step",
    "weights_fingerprint",
    "gradient_norm",
    "gradient_norm_largest",
    "clip_ratio",
    "clipped_share",
}


def rename_root_layers(captured: Captured) -> Captured:
    """Rename layers that have the name of a variable in a run's root: `step` becomes `step~1`."""
    return Captured({_rename(path): leaf for path, leaf in captured.leaves.items()}, captured.attributes)


def _rename(path: str) -> str:
    """Rename the parts of a path that have the name of a variable in a run's root.

    >>> _rename("/step/lstm"), _rename("/encoder/steps"), _rename("/gradient_norm")
    ('/step~1/lstm', '/encoder/steps', '/gradient_norm~1')
    """
    if not _ROOT & set(path.split("/")):
        return path
    return "/".join(f"{part}~1" if part in _ROOT else part for part in path.split("/"))


def by_key(reduced: Reduced) -> dict[str, NamedArray]:
    """Return the arrays by their keys in a run."""
    return {
        f"{path}/{name}".strip("/"): array for path, leaf in reduced.items() for name, array in leaf.items()
    }


def nbytes(reduced: Reduced) -> int:
    return sum(array.values.nbytes for leaf in reduced.values() for array in leaf.values())


def as_tree(reduced: Reduced, captured: Captured, quantiles: Sequence[float]) -> xr.DataTree:
    """Label a reduced capture with the coordinates of its remaining dims and with its attributes."""
    tree = xr.DataTree()
    for path, arrays in reduced.items():
        layout = captured.leaves[path].layout
        dims = {dim for array in arrays.values() for dim in array.dims}
        coords = {str(name): each for name, each in layout.coords.items() if {*each.dims} <= dims}
        if "quantile" in dims:
            coords["quantile"] = xr.DataArray(list(quantiles), dims="quantile")
        attributes = {name: layout.variables[name].attrs for name in arrays if name in layout.variables}
        variables = {
            name: xr.Variable(array.dims, array.values, attributes.get(name))
            for name, array in arrays.items()
        }
        tree[path] = xr.DataTree(xr.Dataset(variables, coords=coords, attrs=layout.attrs))
    tree.attrs.update(captured.attributes)
    return tree
