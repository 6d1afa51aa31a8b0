"""Labels of axes from the caller: tokens or dates, names of features, ids of samples.

They are coordinates, such as `time_label`, and not an index: arithmetic uses positions, and labels may
repeat. Plots write them beside their axes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from throughtime._errors import SchemaError
from throughtime._text.printable import printable
from throughtime._vocabulary import label_of


def label_axes(tree: xr.DataTree, labels: Mapping[str, Any], name: str = "") -> None:
    """Add labels to the layers of a tree whose dims have the same length; the tree is changed.

    Labels of `time` may be (sample, time). `name` is that of the coordinate, by default that of the labels of
    the dim. Labels that are no sequence, or fit no layer, raise SchemaError.
    """
    for dim, given in labels.items():
        values = _array(dim, given)
        dims = (dim,) if values.ndim == 1 else ("sample", dim)
        fitting = [leaf for leaf in tree.leaves if tuple(map(leaf.sizes.get, dims)) == values.shape]
        if not fitting:
            have = sorted({leaf.sizes[dim] for leaf in tree.leaves if dim in leaf.sizes})
            sizes = " or ".join(map(str, have)) or "no such axis"
            raise SchemaError(f"{dim}: {values.shape[-1]} labels were passed, and the layers have {sizes}.")
        for leaf in fitting:
            leaf.dataset = leaf.to_dataset().assign_coords({name or label_of(dim): (dims, values)})


def _array(dim: str, given: Any) -> np.ndarray[Any, Any]:
    """Return labels as an array: dates and numbers unchanged, all others as text."""
    try:
        values = np.asarray(given)
    except (TypeError, ValueError):
        values = np.empty(())
    if isinstance(given, str | bytes) or values.ndim not in ((1, 2) if dim == "time" else (1,)):
        raise SchemaError(f"{dim}: expected a label for each place along it, such as a list of names.")
    if values.dtype.kind in "iufM":
        return values
    # Object dtype: fixed-width strings make a later, longer label raise in a stored run.
    flat = [printable(str(each)) for each in values.ravel()]
    return np.array(flat, dtype=object).reshape(values.shape)
