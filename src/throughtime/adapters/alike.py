"""Whether a loss that only a function knows treats the samples of several parts of a batch alike.

A mean over the steps that are valid, say, is no mean over samples. It is tried on single samples, and on
pairs from different parts.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

from throughtime.adapters.records import MEAN

_UNLIKE = (
    "the loss is no plain mean or sum over samples: some count for more than others, as where it averages "
    "over valid steps"
)
_TOLERANCE = 1e-4


class Alike:
    """Looks at one part after the other.

    Parameters
    ----------
    evaluate : callable (structure) -> float
        The loss of a structure of predictions, labels and weights.
    rows_of : callable (structure, rows) -> structure
        Takes some of its samples.
    joined : callable (structure, structure) -> structure
        Puts the samples of two together.
    how : str
        The loss's reduction in words, a mean or a sum, as the first part tells it.
    """

    def __init__(
        self,
        evaluate: Callable[[Any], float],
        rows_of: Callable[[Any, tuple[int, ...]], Any],
        joined: Callable[[Any, Any], Any],
        how: str,
    ) -> None:
        self._evaluate, self._rows_of, self._joined = evaluate, rows_of, joined
        self._how = how
        self._first: Any = None

    def why_not(self, structure: Any, samples: int) -> str:
        """Tell why the next part does not add up with those before; empty where it does.

        Parameters
        ----------
        structure
            As `evaluate` takes it.
        samples : int
        """
        singles = [self._rows_of(structure, (row,)) for row in range(samples)]
        alone = [self._evaluate(single) for single in singles]
        if self._first is None:
            self._first = singles[0]
        pair = [self._evaluate(self._first), alone[0]]
        found = [
            (self._evaluate(structure), alone),
            (self._evaluate(self._joined(self._first, singles[0])), pair),
        ]
        return "" if all(_adds_up(together, parts, self._how) for together, parts in found) else _UNLIKE


def _adds_up(together: float, alone: list[float], how: str) -> bool:
    if not all(map(isfinite, [together, *alone])):  # nothing can be told; what is shown is not finite either
        return True
    expected = sum(alone) / (len(alone) if how == MEAN else 1)
    return abs(together - expected) <= _TOLERANCE * max(abs(together), *map(abs, alone), 1e-30)
