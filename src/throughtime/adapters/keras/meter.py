"""Adds up what the recurrent layers of a pass take, and stops the pass where that is too much.

`tap` tells it of every call before it runs; `size` knows what one takes.
"""

from __future__ import annotations

from typing import Any

from throughtime._budget import Budget, Need
from throughtime._record import Request

from .size import Asked, need
from .wanted import INSIDE


class Meter:
    """What one pass needs so far.

    Parameters
    ----------
    budget : Budget
    request : Request
        Its quantities are those that this pass can give.
    at_once : bool
        The pass computes as it goes: it is stopped at the first layer that is too much. A pass that is
        only traced takes nothing yet, and is judged when all of it is known.
    """

    def __init__(self, budget: Budget, request: Request, *, at_once: bool) -> None:
        self._budget = budget
        self._request = request
        self._at_once = at_once
        self._need = Need()

    def add(self, layer: Any, tensor: Any, *, is_watched: bool, flows_back: bool) -> None:
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
        shape = tuple(getattr(tensor, "shape", ()))
        if len(shape) < 3 or None in shape:
            return
        quantities = self._request.quantities if is_watched else frozenset()
        asked = Asked(
            quantities=quantities,
            inside=quantities & INSIDE,
            flows_back=flows_back,
            activations=self._request.activations,
            training=self._request.training,
        )
        self._need += need(layer, shape, self._budget.part, asked)
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
