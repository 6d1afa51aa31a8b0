"""Joins the records of two loops that read one input in opposite directions: one leaf with both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from throughtime._vocabulary import DIRECTIONS
from throughtime.adapters.records import Array, LayerRecord

from .find import Found

_ONE_WAY = frozenset({"carried_gradient", "carried_by_state", "reset"})
_BOTH_WAYS = "the halves of a bidirectional layer hand back in opposite directions"


def joined(entry: Found, forward: LayerRecord, backward: LayerRecord | None = None) -> LayerRecord:
    """Make one record of both halves, or leave the record of a layer that has one direction."""
    if backward is None:
        return forward
    flags = {**forward.flags, "layer_name": entry.name, "layer_class": "bidirectional"}
    missing = {**backward.missing, **forward.missing}
    if "output_gradient" in forward.arrays or "output_gradient" in backward.arrays:
        missing.pop("output_gradient", None)
    if _ONE_WAY & (forward.arrays.keys() | missing.keys()):
        missing |= dict.fromkeys(_ONE_WAY - {"carried_by_state"}, _BOTH_WAYS)
    return replace(
        forward,
        path=entry.path,
        arrays=dict(_arrays(forward, backward)),
        directions=DIRECTIONS,
        flags={**flags, "merge_mode": "concat"},
        missing=missing,
        inside=forward.inside + backward.inside,
        dims={name: _with_direction(name, dims) for name, dims in forward.dims.items()},
    )


def _arrays(forward: LayerRecord, backward: LayerRecord) -> Iterator[tuple[str, Array]]:
    halves = forward.arrays, backward.arrays
    for name in dict.fromkeys((*forward.arrays, *backward.arrays)):
        one, other = (half.get(name) for half in halves)
        if name in ("input", "valid") and one is not None:
            yield name, one
        elif name in ("output", "output_gradient", "input_gradient"):
            # A half that the loss does not depend on has a gradient of 0.
            pair = [
                np.zeros_like(known) if half is None else half for half, known in ((one, other), (other, one))
            ]
            yield name, pair[0] + pair[1] if name == "input_gradient" else np.concatenate(pair, -1)
        elif name not in _ONE_WAY and one is not None and other is not None and one.shape == other.shape:
            yield name, np.stack([one, other])


def _with_direction(name: str, dims: tuple[str, ...]) -> tuple[str, ...]:
    if name.startswith(("input", "output")):
        return dims
    place = 2 if dims[1:2] == ("time",) else 1
    return (*dims[:place], "direction", *dims[place:])
