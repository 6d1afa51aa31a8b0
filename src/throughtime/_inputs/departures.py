"""`departures`: how the arrays of an edited or handmade tree differ from those of a capture."""

from collections.abc import Set

import xarray as xr

from throughtime._tree import Layer
from throughtime._vocabulary import GATES, VARIABLES

_WHERE_THEY_APPLY = frozenset({"direction", "gate"})
_OF_LAST_STEPS = ("output", "logits")  # without time if a layer returns only its last step
_OF_IMAGES = frozenset({"row", "column", "depth", "channel"})


def departures(captured: Layer | xr.DataArray) -> str:
    """Describe the first array whose layout differs from that of a capture; empty if there is none.

    >>> departures(xr.Dataset({"hidden": (("time", "unit"), [[1.0]])}))
    "'hidden' has the axes time, unit; expected sample, time, unit. Select with isel(sample=[0])."
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
        return f"{name!r} is empty along {', '.join(empty)}."
    if array.dtype.kind not in "biufV":
        return f"{name!r} holds {array.dtype}; expected real numbers."
    if name == "valid" and array.dtype.kind != "b":
        return f"{name!r} holds {array.dtype}; expected bool. Convert it with astype(bool)."
    expected = VARIABLES[name].dims if name in VARIABLES else ()
    has = [str(dim) for dim in array.dims if dim != "step"]
    optional = where_they_apply | ({"time"} if name.startswith(_OF_LAST_STEPS) else set())
    wanted = [dim for dim in expected if dim in has or dim not in optional]
    if not expected or has == wanted or set(has) & _OF_IMAGES:
        return ""
    missing = next((dim for dim in wanted if dim not in has), "")
    order = ", ".join(map(repr, wanted))
    remedy = f"Select with isel({missing}=[0])" if missing else f"Reorder with transpose({order})"
    axes = ", ".join(has) or "none"
    return f"{name!r} has the axes {axes}; expected {', '.join(wanted)}. {remedy}."
