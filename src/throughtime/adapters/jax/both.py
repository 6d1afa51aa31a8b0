"""Two loops that read one input in opposite directions are one layer with an axis of directions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from throughtime._vocabulary import DIRECTIONS
from throughtime.adapters.records import Array, LayerRecord

from .loop import Loop

if TYPE_CHECKING:
    from .find import Found

_ONE_WAY = frozenset({"carried_gradient", "carried_by_state", "reset"})
_BOTH_WAYS = "the halves of a bidirectional layer hand back in opposite directions"


def paired(found: Sequence[Found]) -> list[Found]:
    """Join each loop with the one after it that is its other half, by their names and shapes."""
    waiting, joined = list(found), []
    while waiting:
        first = waiting.pop(0)
        other = next((one for one in waiting if _are_halves(first, one)), None)
        if other is None:
            joined.append(first)
            continue
        waiting.remove(other)
        forward, backward = sorted((first, other), key=lambda one: bool(one.layer.runs_backward))
        path = forward.path.rpartition("/")[0] or "bidirectional"
        joined.append(replace(forward, path=path, name=path.replace("/", "."), backward=backward))
    return joined


def _are_halves(first: Found, second: Found) -> bool:
    """Whether two loops are `forward…` and `backward…` of one module, alike but for their direction."""
    one, other = first.layer, second.layer
    places = [each.path.rpartition("/") for each in (first, second)]
    names = sorted(name for _, _, name in places)
    is_pair = names[0].startswith("backward") and names[1].startswith("forward")
    is_pair = is_pair and names[0][8:] == names[1][7:] and places[0][0] == places[1][0]
    return is_pair and one.runs_backward != other.runs_backward and _shape(one) == _shape(other)


def _shape(loop: Loop) -> tuple[object, ...]:
    shapes = tuple((state.name, loop.body.shapes[state.key].shape) for state in loop.shown)
    return loop.kind, loop.length, loop.input is None, shapes


def joined(entry: Found, forward: LayerRecord, backward: LayerRecord | None = None) -> LayerRecord:
    """Make one record of both halves, or leave the record of a layer that has one direction."""
    if backward is None:
        return forward
    flags = {
        **forward.flags,
        "layer_name": entry.name,
        "layer_class": "bidirectional",
        "merge_mode": "concat",
    }
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
        flags=flags,
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
