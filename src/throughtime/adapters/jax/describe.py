"""Describes loops for the reader of a tree, joins both directions of one; cells of models that do not run."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import jax
import numpy as np

from throughtime._inputs.structures import to_numpy
from throughtime._vocabulary import DIRECTIONS
from throughtime.adapters.records import Array, Attribute, LayerRecord, ModelRecord
from throughtime.adapters.selection import Entry, Selection

from . import find, models, weights
from .find import Found

_ONE_WAY = frozenset({"carried_gradient", "carried_by_state", "reset"})
_BOTH_WAYS = "the halves of a bidirectional layer hand back in opposite directions"


def join(entry: Found, forward: LayerRecord, backward: LayerRecord | None = None) -> LayerRecord:
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


_HINT = (
    " with a cell that can be known without running it: a JAX program's loops are found when it runs, and "
    "tt.capture(model, x, y, loss=…) shows them"
)


@dataclass(frozen=True)
class _Cell(Entry):
    """A cell of a model that is described only: its weights by name."""

    layer: Mapping[str, Array]
    is_recurrent: bool = True


def describe(model: object, layers: object) -> ModelRecord:
    """Read the cells as they are now that `layers` chooses, see `selection.Selection.select`."""
    taken = models.taken_apart(model, training=False)
    arrays = dict(zip(taken.paths, taken.parameters, strict=True))
    found = []
    for place in dict.fromkeys(path[:k] for path in arrays for k in range(len(path))):
        own = {path[len(place) :]: array for path, array in arrays.items() if path[: len(place)] == place}
        named = {".".join(path): to_numpy(array) for path, array in own.items()}
        if kind := weights.kind_of(named):
            path = find.path_of(place) or kind
            found.append(_Cell(path, path.replace("/", "."), named, kind))
    chosen = Selection(found, [one.layer for one in found], dict, _HINT).select(layers)
    return ModelRecord(tuple(map(_leaf, chosen)), of_framework())


def _leaf(entry: _Cell) -> LayerRecord:
    arrays = weights.oriented(entry.class_name, entry.layer) or {}
    kernel = arrays["recurrent_kernel"]
    flags: dict[str, Attribute] = {
        "layer_name": entry.name,
        "cell_class": entry.class_name,
        "units": kernel.shape[0],
        "dtype": str(kernel.dtype),
        "trainable": 1,
    }
    return LayerRecord(
        entry.path, entry.class_name, {n: array.copy() for n, array in arrays.items()}, flags=flags
    )


def of_loop(entry: find.Found, *, has_jacobian: bool) -> dict[str, Attribute]:
    """Read the flags of a loop; a Jacobian that was captured knows of resets, and closed forms do not."""
    loop = entry.layer
    shape = loop.body.shapes[loop.shown[0].key]
    flags: dict[str, Attribute] = {
        "layer_name": entry.name,
        "layer_class": "scan",
        "cell_class": entry.class_name,
        "units": int(shape.shape[-1]) if shape.shape else 1,
        "dtype": str(np.zeros((), shape.dtype).real.dtype),
        "trainable": 1,
        "output_reversed": 0,
        "go_backwards": int(loop.runs_backward),
    }
    if loop.cell is not None:
        flags |= loop.cell.flags
    if any(one.changes.scales for one in loop.shown) and not has_jacobian:
        flags["states_changed"] = 1
    if loop.op.line:
        flags["line"] = loop.op.line
    if loop.op.has_custom_rule:
        flags["custom_rule"] = "gradients are the loop's own, not those of the custom rule around it"
    return flags


def of_framework() -> dict[str, Attribute]:
    """Name JAX and its version."""
    return {"framework": "jax", "framework_version": str(jax.__version__)}
