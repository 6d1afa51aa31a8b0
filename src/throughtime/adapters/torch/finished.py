"""A pass and its calls of watched layers, as `tap` records them and the `collect` modules read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from throughtime.adapters.needs import INSIDE
from throughtime.adapters.records import UNREACHED, Array

from . import weights
from .calls import Named, Step
from .find import Found
from .fused import InnerLayer
from .layout import Layout
from .marks import Gradients
from .recurrence import Recurrence
from .structure import numpy

STATES_ONLY = (
    "the loss depends on the layer's final states, not on its output: hidden_gradient has what reaches them"
)


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
    layout: Layout | None = None
    layers: tuple[InnerLayer, ...] = ()
    output: torch.Tensor | None = None
    activation: str = "tanh"
    autocast: str = ""
    step: Step | None = None
    windows: list[Call] = field(default_factory=list)
    recurrence: Recurrence | None = None
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

    @property
    def steps(self) -> list[Step]:
        """What entered and left each window of a layer, or each call of a loop."""
        windows = [one.step for one in (self, *self.windows) if one.step is not None]
        return windows if self.recurrence is None else [*windows, *self.recurrence.steps]

    def handed_out(self) -> Iterator[Any]:
        """Give the nodes of what a recurrent layer, or a sequence of a cell's calls, has handed out."""
        for step in self.steps:
            yield from (one.copy.node for one in step.leaving.values() if one.copy is not None)
        for one in (self, *self.windows):
            yield from (layer.output.grad_fn for layer in one.layers)


@dataclass(frozen=True)
class Pass:
    """A finished pass: what ran, what came back, what was asked for.

    Attributes
    ----------
    wanted : frozenset of str
        Quantities; no gradients where there are no labels.
    stand_ins, frozen : set of int
        Ids of what stood in for the parameters, and of those among them whose parameters are frozen.
    time_major : tuple of int
        Steps and samples of a model that has its steps first; else empty.
    named : sequence of Named
        What `mark` names outside of every recurrence.
    """

    model: Any
    found: Sequence[Found]
    calls: Sequence[Call]
    gradients: Gradients
    wanted: frozenset[str]
    stand_ins: set[int]
    frozen: set[int]
    has_labels: bool
    time_major: tuple[int, ...]
    named: Sequence[Named] = ()

    @property
    def wants_inside(self) -> bool:
        """Whether anything inside recurrent layers was asked for."""
        return bool(self.wanted & (INSIDE | {"carried_gradient"}))

    def calls_of(self, call: Call) -> list[Call]:
        """List all calls of one layer."""
        return [one for one in self.calls if one.entry.layer is call.entry.layer]

    def weights(
        self,
        kind: str,
        given: Sequence[torch.Tensor],
        marks: Sequence[Iterable[torch.Tensor]],
    ) -> tuple[dict[str, Array], dict[str, str]]:
        """Read the weights of one direction and their total gradients, as far as asked for.

        Parameters
        ----------
        kind : str
        given : sequence of tensors
            In torch's order.
        marks : sequence of iterables of tensors
            All marks made of each weight, by whatever call.

        Returns
        -------
        dict of str to ndarray, dict of str to str
            Arrays by the schema's names, and the reasons for gradients that do not exist.
        """
        pairs = zip(given, marks, strict=True)
        return self._read(dict(zip(weights.names(len(given)), pairs, strict=True)), kind)

    def own_weights(self, module: Any) -> tuple[dict[str, Array], dict[str, str]]:
        """Read all weights of any layer and their total gradients, as `weights` does."""
        return self._read({name: (weight, (weight,)) for name, weight in weights.own(module).items()}, "")

    def _read(
        self, named: Mapping[str, tuple[torch.Tensor, Iterable[torch.Tensor]]], kind: str
    ) -> tuple[dict[str, Array], dict[str, str]]:
        arrays: dict[str, Array] = {}
        missing: dict[str, str] = {}
        for name, (weight, marks) in named.items():
            if "weights" in self.wanted:
                arrays[name] = weights.turned(kind, name, numpy(weight, copy=True))
            if "weight_gradients" in self.wanted:
                # A parametrization computes the weight anew for each call.
                uses = (weight,) if id(weight) in self.stand_ins else marks
                gradient = self.gradients.of(*uses)
                if gradient is None:
                    missing[f"{name}_gradient"] = UNREACHED
                else:
                    arrays[f"{name}_gradient"] = weights.turned(kind, name, gradient)
        return arrays, missing

    def used(
        self, kind: str, given: Sequence[torch.Tensor], marks: Iterable[Iterable[torch.Tensor]]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Read the weights of one direction, and their gradients through these marks alone."""
        gradients = [self.gradients.of(*made) for made in marks]
        values = [numpy(weight, copy=True) for weight in given]
        return weights.oriented(kind, values), weights.oriented(kind, gradients, "_gradient")
