"""Adds up what the recurrent layers of a pass take, and stops the pass where that is too much.

The adapters of every Keras tell it of every call before it runs; their `size` knows what one takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from throughtime._memory.budget import NOTHING, Amount, Budget, Need
from throughtime.adapters.needs import INSIDE, bytes_of
from throughtime.adapters.records import Request

from .sizes import Asked

# layer, shape of its input, samples of the batch, what is asked -> what the call takes
SizeOf = Callable[[Any, tuple[int, ...], int, Asked], Need]
_OF_WEIGHTS = frozenset({"weight_gradients", "certificate"})
_OF_OUTPUTS = frozenset({"output", "output_gradient"})


class Meter:
    """What one pass needs so far.

    Parameters
    ----------
    budget : Budget
    request : Request
        Its quantities are those that this pass can give.
    is_repeated : bool
        The pass runs once more beside what it gave the first time.
    at_once : bool
        The pass computes as it goes: it is stopped at the first layer that is too much. A pass that is
        only traced takes nothing yet, and is judged when all of it is known.
    size_of : SizeOf
    """

    def __init__(
        self, budget: Budget, request: Request, size_of: SizeOf, *, is_repeated: bool, at_once: bool
    ) -> None:
        self._budget = budget
        self._request = request
        self._size_of = size_of
        self._is_repeated = is_repeated
        self._at_once = at_once
        self._need = Need()

    @property
    def samples(self) -> int:
        """Of the batch that the pass runs on."""
        return self._budget.part

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
            reaches_weights=bool(self._request.quantities & _OF_WEIGHTS),
            is_repeated=self._is_repeated,
        )
        self._add(self._size_of(layer, shape, self._budget.part, asked))

    def add_output(self, tensors: Sequence[Any], *, is_watched: bool, flows_back: bool) -> None:
        """Add what a layer that is not recurrent returned, or the model: it has a gradient as large.

        Parameters
        ----------
        tensors : sequence of tensors
            Of known shapes; others are not counted.
        is_watched : bool
            It is asked for, and counts as returned.
        flows_back : bool
            A gradient flows back through it.
        """
        known = [tensor for tensor in tensors if None not in tuple(getattr(tensor, "shape", (None,)))]
        each = Amount(sum(map(_bytes, known)) / self._budget.part)
        names = _OF_OUTPUTS & self._request.quantities if is_watched else ()
        # Beside the tensor the activation's argument, and their gradients.
        passing = sum([each] * (4 if flows_back else 2), NOTHING)
        repeated = sum([each] * len(names), NOTHING) if self._is_repeated else NOTHING
        self._add(Need(dict.fromkeys(names, each), passing, repeated=repeated))

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


def _bytes(tensor: Any) -> int:
    return int(prod(tensor.shape)) * bytes_of(str(tensor.dtype))
