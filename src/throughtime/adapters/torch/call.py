"""One call of a watched layer, as `tap` records it and the `collect` modules read it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from . import calls, fused, layout, recurrence
from .find import Found


@dataclass
class Call:
    """One call of one watched layer, or of a cell: one sequence of its calls.

    Attributes
    ----------
    number : int
        The first call of a layer is 1.
    kind : str
        Of a recurrent layer; empty for all others.
    layout : Layout or None
        Of a fused recurrent layer.
    layers : tuple of InnerLayer
        Of a fused recurrent layer.
    output : tensor or None
        Mark of what another layer returns; None where that is no tensor.
    step : Step or None
        The states that a fused layer was given and handed out.
    windows : list of Call
        Later calls of a fused layer, each of which starts from the states of the one before.
    recurrence : Recurrence or None
        Of a cell, or a module that is called again with what it returned: its calls, as one.
    order : int
        Calls are counted as they come.
    is_beside : bool
        The content of the layer has leaves below its path, so that its own stands beside it.
    autocast : str
        Precision that autocast computes in; empty where it is off.
    """

    entry: Found
    number: int
    kind: str = ""
    layout: layout.Layout | None = None
    layers: tuple[fused.InnerLayer, ...] = ()
    output: torch.Tensor | None = None
    activation: str = "tanh"
    autocast: str = ""
    step: calls.Step | None = None
    windows: list[Call] = field(default_factory=list)
    recurrence: recurrence.Recurrence | None = None
    order: int = 0
    is_beside: bool = False

    def path(self, part: int | None = None) -> str:
        """Name the leaf of this call, or of one inner layer of it."""
        path = self.entry.path
        if self.entry.is_part:
            path = path.rpartition("/")[0]
        if self.number > 1 or self.is_beside:
            path = f"{path}@{self.number}"
        return path if part is None else f"{path}/{part}"

    def handed_out(self) -> Iterator[Any]:
        """Give the nodes of what a recurrent layer, or a sequence of a cell's calls, has handed out."""
        for step in self.recurrence.steps if self.recurrence is not None else ():
            yield from (one.copy.node for one in step.leaving.values() if one.copy is not None)
        for layer in (layer for one in (self, *self.windows) for layer in one.layers):
            yield layer.output.grad_fn
            yield from (state.grad_fn for one in layer.directions for state in one.final)

    def edges(self) -> Iterator[Any]:
        """Give the places whose gradients a loop's leaf is made of."""
        steps = [one.step for one in (self, *self.windows) if one.step is not None]
        for step in [*steps, *(self.recurrence.steps if self.recurrence is not None else ())]:
            yield from step.edges()
