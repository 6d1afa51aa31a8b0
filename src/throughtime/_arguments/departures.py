"""`departures`: where the arrays of a tree that was cut, or made by hand, are not as a capture makes them."""

from __future__ import annotations

from collections.abc import Set

import xarray as xr

from throughtime._tree import Layer
from throughtime._vocabulary import GATES, VARIABLES

_WHERE_THEY_APPLY = frozenset({"direction", "gate"})
_OF_LAST_STEPS = ("output", "logits")  # where a layer returns its last step alone
_OF_IMAGES = frozenset({"row", "column", "depth", "channel"})


def departures(captured: Layer | xr.DataArray) -> str:
    """Say where arrays are not as a capture makes them; empty where they are.

    Examples
    --------
    >>> departures(xr.Dataset({"hidden": (("time", "unit"), [[1.0]])}))
    "'hidden' has the axes time, unit, and in a capture sample, time, unit: take one with isel(sample=[0])."
    """
    if isinstance(captured, xr.DataArray):
        return _departure(str(captured.name or "The array"), captured, _WHERE_THEY_APPLY)
    nodes = captured.leaves if isinstance(captured, xr.DataTree) else [captured]
    found = (
        _departure(str(name), each, _WHERE_THEY_APPLY - _gated(node))
        for node in nodes
        for name, each in node.data_vars.items()
    )
    return next(filter(None, found), "")


def _gated(layer: Layer) -> Set[str]:
    return frozenset({"gate"} if layer.attrs.get("kind") in GATES else ())


def _departure(name: str, array: xr.DataArray, where_they_apply: Set[str]) -> str:
    if empty := [str(dim) for dim, size in array.sizes.items() if size == 0]:
        return f"{name!r} is empty: it has nothing along {', '.join(empty)}."
    if array.dtype.kind not in "biufV":
        return f"{name!r} has to hold real numbers; it holds {array.dtype}."
    if name == "valid" and array.dtype.kind != "b":
        return f"{name!r} has to hold True and False; it holds {array.dtype}: astype(bool) makes flags of it."
    expected = VARIABLES[name].dims if name in VARIABLES else ()
    has = [str(dim) for dim in array.dims if dim != "step"]
    optional = where_they_apply | ({"time"} if name.startswith(_OF_LAST_STEPS) else set())
    wanted = [dim for dim in expected if dim in has or dim not in optional]
    if not expected or has == wanted or set(has) & _OF_IMAGES:
        return ""
    missing = next((dim for dim in wanted if dim not in has), "")
    remedy = f"take one with isel({missing}=[0])" if missing else f"transpose({', '.join(map(repr, wanted))})"
    axes = ", ".join(has) or "none"
    return f"{name!r} has the axes {axes}, and in a capture {', '.join(wanted)}: {remedy}."
