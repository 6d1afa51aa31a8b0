"""A finished pass: what ran, what came back, what was asked for; read by the `collect` modules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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

    def total(self, weight: torch.Tensor, marks: Iterable[torch.Tensor]) -> Array | None:
        """Return what the optimizer receives for a weight, from all its uses."""
        if id(weight) in self.stand_ins:
            return self.gradients.of(weight)
        # A parametrization computes the weight anew for each call.
        return self.gradients.of(*marks)

    def own_weights(self, module: Any) -> tuple[dict[str, Array], dict[str, str]]:
        """Read all weights of any layer and their total gradients, as `weights` does."""
        arrays: dict[str, Array] = {}
        missing: dict[str, str] = {}
        for name, weight in weights.own(module).items():
            if "weights" in self.wanted:
                arrays[name] = numpy(weight, copy=True)
            if "weight_gradients" in self.wanted:
                gradient = self.gradients.of(weight)
                if gradient is None:
                    missing[f"{name}_gradient"] = UNREACHED
                else:
                    arrays[f"{name}_gradient"] = gradient
        return arrays, missing

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
        arrays: dict[str, Array] = {}
        if "weights" in self.wanted:
            arrays |= weights.oriented(kind, [numpy(weight, copy=True) for weight in given])
        if "weight_gradients" not in self.wanted:
            return arrays, {}
        totals = [self.total(weight, made) for weight, made in zip(given, marks, strict=True)]
        found = weights.oriented(kind, totals, "_gradient")
        expected = [f"{name}_gradient" for name in weights.names(len(given))]
        return arrays | found, {name: UNREACHED for name in expected if name not in found}
