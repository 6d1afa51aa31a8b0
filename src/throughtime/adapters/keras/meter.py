"""Adds up what the recurrent layers of a pass take, and stops the pass where that is too much."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

from throughtime._memory.budget import Budget, Need
from throughtime.adapters.needs import Asked, bytes_of, estimate_outputs
from throughtime.adapters.records import Request

from .dialect import Dialect
from .sizes import need
from .ways import why_not


class Sized(NamedTuple):
    """What is read of a tensor."""

    shape: tuple[Any, ...]
    dtype: str


class Meter:
    """What one pass needs so far.

    Parameters
    ----------
    keras : Dialect
    budget : Budget
    request : Request
        Its quantities are those that this pass can give.
    is_repeated : bool
        The pass runs once more beside what it gave the first time.
    at_once : bool
        The pass computes as it goes: it is stopped at the first layer that is too much. A pass that is
        only traced takes nothing yet, and is judged when all of it is known.
    """

    def __init__(
        self, keras: Dialect, budget: Budget, request: Request, *, is_repeated: bool, at_once: bool
    ) -> None:
        self._keras, self._budget, self._quantities = keras, budget, request.quantities
        self._is_repeated, self._at_once = is_repeated, at_once
        self._need = Need()

    @property
    def samples(self) -> int:
        """Of the batch that the pass runs on."""
        return self._budget.part

    def add(self, layer: Any, tensor: Sized, *, is_watched: bool, flows_back: bool) -> None:
        """Add a call before it runs.

        Parameters
        ----------
        layer : RNN or Bidirectional
        tensor : the layer's input
        is_watched : bool
            Something of it is asked for; else it only runs along.
        flows_back : bool
            A gradient flows back through it.

        Raises
        ------
        ExceededError
        """
        if len(tensor.shape) < 3 or None in tensor.shape:
            return
        looks_inside = is_watched and not why_not(self._keras, layer)
        asked = self._asked(is_watched, flows_back, looks_inside)
        self._add(need(self._keras, layer, tensor.shape, self.samples, asked))

    def add_output(self, tensors: Sequence[Sized], *, is_watched: bool, flows_back: bool) -> None:
        """Add what a layer that is not recurrent returned, or the model, where its shape is known."""
        known = [prod(each.shape) * bytes_of(each.dtype) for each in tensors if None not in each.shape]
        self._add(estimate_outputs(sum(known) / self.samples, self._asked(is_watched, flows_back)))

    def _asked(self, is_watched: bool, flows_back: bool, looks_inside: bool = True) -> Asked:
        quantities: frozenset[str] = self._quantities if is_watched else frozenset()
        return Asked(quantities, looks_inside, flows_back, self._is_repeated)

    def _add(self, need: Need) -> None:
        self._need += need
        if self._at_once:
            self._budget.check(self._need)

    def total(self) -> Need:
        """Return what all calls need together.

        Raises
        ------
        ExceededError
        """
        self._budget.check(self._need)
        return self._need
