"""Checks that a capture has what was requested: each named quantity, and a gradient for each layer."""

from collections.abc import Iterable, Sequence

from throughtime import _vocabulary
from throughtime._errors import NoGradientError, SchemaError, warn
from throughtime.adapters.records import UNREACHED, LayerRecord, ModelRecord


def check_named(record: ModelRecord, names: Iterable[str]) -> None:
    """Refuse a result that lacks a quantity requested by name."""
    for quantity in sorted({*names} - {"weights", "weight_gradients"}):
        reasons = [_reason(leaf, quantity) for leaf in record.layers]
        if all(reasons):
            has = ", ".join(record.layers[0].arrays)
            captured = f" {record.layers[0].path} has: {has}." if has else ""
            error = NoGradientError if quantity in _vocabulary.GRADIENT_QUANTITIES else SchemaError
            raise error(f"There is no {quantity} for {_paths(record.layers)}: {reasons[0]}.{captured}")


def check_reached(record: ModelRecord, *, is_group: bool) -> None:
    """Report layers on which the loss does not depend: an error unless they belong to a group."""
    unreached = [leaf for leaf in record.layers if leaf.missing.get("output_gradient") == UNREACHED]
    if not unreached:
        return
    text = (
        f"The loss does not depend on the output of {_paths(unreached)}: it has no gradient. Is that "
        "output used by the model, and not cut off by stop_gradient, no_grad, reentrant checkpointing or "
        "argmax on its way to the loss?"
    )
    if not is_group or len(unreached) == len(record.layers):
        raise NoGradientError(text)
    warn(text)


def _reason(leaf: LayerRecord, quantity: str) -> str:
    """Return the reason why a layer lacks a requested quantity; empty if it has it."""
    if quantity == "logits_gradient" and quantity not in leaf.arrays:
        return "its last step is no softmax or sigmoid, or the loss does not depend on it"
    inside = quantity in _vocabulary.INSIDE or quantity == "certificate"
    return leaf.missing.get(quantity, "") or (leaf.missing.get("inside", "") if inside else "")


def _paths(leaves: Sequence[LayerRecord]) -> str:
    return ", ".join(leaf.path for leaf in leaves)
