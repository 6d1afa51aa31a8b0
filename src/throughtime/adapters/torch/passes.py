"""A pass and its calls of watched layers, as `tap` records them and the `collect` modules read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch.autograd.graph import Node

from throughtime.adapters.needs import INSIDE
from throughtime.adapters.records import UNREACHED, Array

from . import weights
from .calls import Named, Step
from .find import Found
from .kernels import InnerLayer
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

    `number` counts the calls of the layer from 1, `order` all calls as they come. `kind`, `layout` and
    `layers` are those of a fused recurrent layer, `step` has the states that it was given and handed out, and
    `windows` later calls, each of which starts from the states of the one before. `recurrence` has the calls
    of a cell, or of a module that is called again with what it returned. `output` marks the first tensor that
    another layer returns. With `is_beside` the layer's content has leaves below its path, so that its leaf
    stands beside it. `autocast` is the precision that autocast computes in; empty where it is off.
    `is_cut` if the model calls it under `torch.no_grad`, so that training gives it no gradient.
    """

    entry: Found
    number: int
    kind: str = ""
    layout: Layout | None = None
    layers: tuple[InnerLayer, ...] = ()
    output: torch.Tensor | None = None
    activation: str = "tanh"
    autocast: str = ""
    is_cut: bool = False
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
        """Inputs and results of each window of a layer, or of each call of a loop."""
        windows = [one.step for one in (self, *self.windows) if one.step is not None]
        return windows if self.recurrence is None else [*windows, *self.recurrence.steps]

    def handed_out(self) -> Iterator[Node | None]:
        """Give the nodes of what a recurrent layer, or a sequence of a cell's calls, has handed out."""
        for step in self.steps:
            yield from (one.copy.node for one in step.leaving.values() if one.copy is not None)
        for one in (self, *self.windows):
            yield from (layer.output.grad_fn for layer in one.layers)


@dataclass(frozen=True)
class Pass:
    """A finished pass: what ran, what came back, what was asked for.

    `wanted` has no gradients where there are no labels. `stand_ins` are ids of what stood in for the
    parameters, `frozen` those among them whose parameters are frozen. `time_major` has steps and samples of a
    model that has its steps first, `output_axes` the most axes of any output, `named` what `mark` names
    outside of every recurrence.
    """

    model: torch.nn.Module
    found: Sequence[Found]
    calls: Sequence[Call]
    gradients: Gradients
    wanted: frozenset[str]
    stand_ins: set[int]
    frozen: set[int]
    has_labels: bool
    time_major: tuple[int, ...]
    output_axes: int
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
        """Read one direction's weights, in torch's order, and their total gradients, as far as asked for.

        `marks` are all marks made of each weight, by whatever call. Returns arrays by the schema's names, and
        the reasons for gradients that do not exist.
        """
        pairs = zip(given, marks, strict=True)
        return self._read(dict(zip(weights.names(len(given)), pairs, strict=True)), kind)

    def own_weights(self, module: torch.nn.Module) -> tuple[dict[str, Array], dict[str, str]]:
        """Read all weights of any layer and their total gradients, as `weights` does."""
        return self._read({name: (weight, (weight,)) for name, weight in weights.by_name(module).items()}, "")

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
