"""What a reader of the tree needs beside the arrays: of a loop, and of the whole capture."""

from __future__ import annotations

import jax

from throughtime.adapters.records import Attribute

from .find import Found
from .loop import Loop


def of_loop(entry: Found, *, has_jacobian: bool) -> dict[str, Attribute]:
    """Read the flags of a loop; a Jacobian that was captured knows of resets, and closed forms do not."""
    loop: Loop = entry.layer
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
    if any(one.changes.on_entry or one.changes.on_exit for one in loop.shown) and not has_jacobian:
        flags["states_changed"] = 1
    if loop.op.line:
        flags["line"] = loop.op.line
    if loop.op.has_custom_rule:
        flags["custom_rule"] = "gradients are the loop's own, not those of the custom rule around it"
    return flags


def of_framework() -> dict[str, Attribute]:
    """Name JAX and its version."""
    return {"framework": "jax", "framework_version": str(jax.__version__)}
