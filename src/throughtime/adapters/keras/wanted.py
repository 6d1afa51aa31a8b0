"""Which kinds of tensors must be watched during a pass for which quantities.

Shared by the adapters of every Keras.
"""

from __future__ import annotations

from throughtime.adapters.needs import INSIDE, INSIDE_GRADIENTS

_NEEDED_FOR = {
    "inside": INSIDE,
    "inside_gradients": INSIDE_GRADIENTS,
    "outputs": INSIDE_GRADIENTS | {"output_gradient"},
    "logits": frozenset({"output_gradient", "logits_gradient"}),
    "inputs": frozenset({"input_gradient", "certificate"}),
    "weights": frozenset({"certificate"}),
}


def watched(quantities: frozenset[str], *, has_loss: bool) -> frozenset[str]:
    """Kinds of tensors to mark and keep, for the quantities asked for."""
    kinds = {kind for kind, needs in _NEEDED_FOR.items() if quantities & needs}
    return frozenset(kinds if has_loss else kinds & {"inside"})
