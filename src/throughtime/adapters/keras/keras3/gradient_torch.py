"""Passes on the torch backend: `autograd.grad` on the graph of each; nothing is traced or kept."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import torch

from throughtime.adapters.keras.contracts import LoopStep, Scanned, T, Tensor, Variable
from throughtime.adapters.keras.dialect import Mark, Run


def compiled(run: Run, values: Sequence[Tensor], inputs: object, *, eager: bool, with_xla: bool) -> Run:
    """Return `run`: torch builds its graph on every pass."""
    return run


def differentiated(step: Callable[[Mark], tuple[Any, T]]) -> tuple[T, dict[str, Tensor]]:
    """Run a step; return what it keeps, without history, and the gradients that exist."""
    marks: dict[str, torch.Tensor] = {}

    def mark(key: str, tensor: Any) -> Any:
        # A tensor without a history becomes a new leaf: the caller's stays without gradient.
        marks[key] = copy = (
            tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_()
        )
        return copy

    with torch.enable_grad():
        loss, kept = step(mark)
    gradients: dict[str, Tensor] = {}
    if marks and loss is not None and loss.requires_grad:
        found = torch.autograd.grad(loss, list(marks.values()), allow_unused=True)
        gradients = {key: each for key, each in zip(marks, found, strict=True) if each is not None}
    # Tensors with a history would keep all that the pass has computed.
    return keras.tree.map_structure(lambda one: one if one is None else one.detach(), kept), gradients


def value_of(variable: Variable) -> Tensor:
    """Return the variable's own value as a tensor that shares its memory."""
    return variable._value.detach()


def scan(step: LoopStep, carry: object, sequences: object) -> Scanned:
    """Run `step` (carry, values of one step) -> (carry, outputs) along the first axis."""
    outputs = []
    flat = keras.tree.flatten(sequences)
    for values in zip(*(torch.unbind(sequence) for sequence in flat), strict=True):
        carry, output = step(carry, keras.tree.pack_sequence_as(sequences, list(values)))
        outputs.append(output)
    return carry, keras.tree.map_structure(lambda *each: torch.stack(each), *outputs)
