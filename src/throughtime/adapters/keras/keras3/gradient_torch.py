"""Gradients on the torch backend: `autograd.grad` on the graph of one pass; nothing is traced or kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import torch

from throughtime.adapters.keras.seen import Result

from .backend import Scoped, TracedValues


def trace(
    program: Scoped, variables: Sequence[Any], inputs: Any, *, compiled: bool, eager: bool
) -> TracedValues:
    """Return a function that runs `program`; torch builds its graph on every pass.

    Returns
    -------
    callable
        (variable values, inputs) -> Result
    """
    del variables, inputs, compiled, eager

    def call(values: Sequence[Any], inputs: Any) -> Result:
        marks: dict[str, Any] = {}

        def mark(key: str, tensor: Any) -> Any:
            # A tensor without a history becomes a leaf of its own: the caller's stays without gradient.
            marks[key] = copy = (
                tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_()
            )
            return copy

        with torch.enable_grad():
            own = [value.detach() for value in values]
            for index in program.differentiated:
                own[index].requires_grad_()
            loss, tensors = program(own, inputs, mark)
        sources = {**marks, **{f"variable.{index}": own[index] for index in program.differentiated}}
        gradients = _gradients(loss, sources)
        # Tensors with a history would keep all that the pass has computed.
        return Result({key: tensor.detach() for key, tensor in tensors.items()}, gradients)

    return call


def _gradients(loss: Any, sources: dict[str, Any]) -> dict[str, Any]:
    if loss is None or not sources or not loss.requires_grad:
        return {}
    gradients = torch.autograd.grad(loss, list(sources.values()), allow_unused=True)
    return {key: g for key, g in zip(sources, gradients, strict=True) if g is not None}


def value_of(variable: Any) -> Any:
    """Return the variable's own value as a tensor that shares its memory."""
    return variable._value.detach()


def scan(step: Any, carry: Any, sequences: Any) -> tuple[Any, Any]:
    """Run `step` (carry, values of one step) -> (carry, outputs) along the first axis."""
    outputs = []
    flat = keras.tree.flatten(sequences)
    for values in zip(*(torch.unbind(sequence) for sequence in flat), strict=True):
        carry, output = step(carry, keras.tree.pack_sequence_as(sequences, list(values)))
        outputs.append(output)
    return carry, keras.tree.map_structure(lambda *each: torch.stack(each), *outputs)
