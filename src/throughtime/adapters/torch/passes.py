"""A pass and its calls of watched layers, as `tap` records them and the `collect` modules read them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.autograd.graph import Node

from throughtime.adapters.needs import INSIDE
from throughtime.adapters.records import UNREACHED, Array

from . import weights
from .calls import Leaving, Step
from .find import Found
from .marks import Gradients
from .recurrence import Recurrence
from .structure import numpy

STATES_ONLY = (
    "the loss depends on the layer's final states, not on its output: hidden_gradient has what reaches them"
)
Weights = Mapping[str, tuple[torch.Tensor, Sequence[torch.Tensor]]]  # by the schema's names, with their marks


@dataclass
class Call:
    """One call of one watched layer; of a recurrent one the sequence of its calls, `recurrence`.

    `number` counts the calls of the layer from 1, `order` all calls as they come. `output` marks the first
    tensor that a layer returns which is not recurrent. With `is_beside` the layer's content has leaves below
    its path, so that its leaf stands beside it. `autocast` is the precision that autocast computes in; empty
    where it is off. `is_cut` if the model calls it under `torch.no_grad`, so that training gives it no
    gradient.
    """

    entry: Found
    number: int
    kind: str = ""
    output: torch.Tensor | None = None
    activation: str = "tanh"
    autocast: str = ""
    is_cut: bool = False
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
        """Each call of a sequence."""
        return [] if self.recurrence is None else self.recurrence.steps

    def handed_out(self) -> Iterator[Node | None]:
        """Give the nodes of what a recurrent layer has handed out."""
        for step in self.steps:
            yield from (one.copy.node for one in step.leaving.values() if one.copy is not None)
            yield from (layer.output.grad_fn for layer in step.layers)


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
    named: Sequence[tuple[str, Leaving]] = ()

    @property
    def wants_inside(self) -> bool:
        """Whether anything inside recurrent layers was asked for."""
        return bool(self.wanted & (INSIDE | {"carried_gradient"}))

    def steps_of(self, call: Call) -> list[Step]:
        """List the calls in all sequences of one layer."""
        return [step for one in self.calls if one.entry.layer is call.entry.layer for step in one.steps]

    def weights(self, kind: str, named: Weights) -> tuple[dict[str, Array], dict[str, str]]:
        """Read weights and their total gradients, as far as asked for, and why a gradient does not exist.

        `named` has all marks made of each weight, by whatever call.
        """
        arrays = _values(kind, named) if "weights" in self.wanted else {}
        if "weight_gradients" not in self.wanted:
            return arrays, {}
        # A parametrization computes the weight anew for each call.
        total = {
            name: (weight, (weight,) if id(weight) in self.stand_ins else marks)
            for name, (weight, marks) in named.items()
        }
        gradients = self._gradients(kind, total)
        missing = {name: UNREACHED for one in named if (name := f"{one}_gradient") not in gradients}
        return arrays | gradients, missing

    def own_weights(self, module: torch.nn.Module) -> tuple[dict[str, Array], dict[str, str]]:
        """Read all weights of any layer and their total gradients, as `weights` does."""
        return self.weights("", {name: (one, (one,)) for name, one in weights.by_name(module).items()})

    def used(self, kind: str, named: Weights) -> tuple[dict[str, Array], dict[str, Array]]:
        """Read weights, and their gradients through these marks alone."""
        return _values(kind, named), self._gradients(kind, named)

    def _gradients(self, kind: str, named: Weights) -> dict[str, Array]:
        found = {name: self.gradients.of(*marks) for name, (_, marks) in named.items()}
        known = {name: one for name, one in found.items() if one is not None}
        return {f"{name}_gradient": weights.turned(kind, name, one) for name, one in known.items()}


def _values(kind: str, named: Weights) -> dict[str, Array]:
    pairs = named.items()
    return {name: weights.turned(kind, name, numpy(weight, copy=True)) for name, (weight, _) in pairs}
