"""Keys of a record, in two groups: `throughtime/` has what matters first, `detail/` all else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import xarray as xr

Labelled = TypeVar("Labelled", xr.DataArray, xr.Dataset)
FIRST, DETAIL = "throughtime", "detail"


def group(path: str, direction: str, first: str = DETAIL) -> str:
    """Return the first part of a key: `detail/<layer>/<direction>`, or without an empty direction.

    Examples
    --------
    >>> group("/encoder/lstm", "forward")
    'detail/encoder.lstm/forward'
    """
    layer = path.strip("/").replace("/", ".")
    return "/".join(filter(None, (first, layer, direction)))


def parts_by(dim: str, array: Labelled) -> Iterator[tuple[str, Labelled]]:
    """Yield the label and part of an array at each position of a dim; without that dim, "" and the array."""
    if dim not in array.dims:
        yield "", array
        return
    for name in array[dim].values:
        yield str(name), array.sel({dim: name}, drop=True)
