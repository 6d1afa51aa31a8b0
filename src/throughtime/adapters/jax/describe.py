"""Describes loops for the reader of a tree, and known cells of a model that does not run."""

from __future__ import annotations

from typing import Any

import jax

from throughtime._data.structures import to_numpy
from throughtime.adapters.records import Attribute, LayerRecord, ModelRecord
from throughtime.adapters.selection import Selection

from . import find, models, weights

_HINT = (
    " with a cell that can be known without running it: a JAX program's loops are found when it runs, and "
    "tt.capture(model, x, y, loss=…) shows them"
)


def describe(model: Any, layers: Any) -> ModelRecord:
    """Read the cells as they are now that `layers` chooses, see `selection.Selection.select`."""
    taken = models.taken_apart(model, training=False)
    arrays = dict(zip(taken.paths, taken.parameters, strict=True))
    found = []
    for place in dict.fromkeys(path[:k] for path in arrays for k in range(len(path))):
        own = {path[len(place) :]: array for path, array in arrays.items() if path[: len(place)] == place}
        named = {".".join(path): to_numpy(array) for path, array in own.items()}
        if kind := weights.kind_of(named):
            path = find.path_of(place) or kind
            found.append(find.Found(path, path.replace("/", "."), named, kind))
    chosen = Selection(found, [one.layer for one in found], dict, _HINT).select(layers)
    return ModelRecord(tuple(map(_leaf, chosen)), of_framework())


def _leaf(entry: Any) -> LayerRecord:
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
        "dtype": str(shape.dtype),
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
