"""A finished pass: what ran, what came back, what was asked for; read by the `collect` modules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from throughtime.adapters.needs import INSIDE
from throughtime.adapters.records import UNREACHED, Array

from . import weights
from .call import Call
from .calls import Named
from .find import Found
from .marks import Gradients
from .structure import numpy

STATES_ONLY = (
    "the loss depends on the layer's final states, not on its output: hidden_gradient has what reaches them"
)


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
