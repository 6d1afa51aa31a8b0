"""How a loss that only a function knows reduces samples, found by trying it on two of them."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite

from throughtime._errors import ThroughTimeError
from throughtime.adapters.records import MEAN, ONE_SAMPLE, SUM

UNDONE = "nothing undone"
FAILS = "not known: the loss fails on two samples alone"
_TRIED = 4  # samples looked at for two whose losses are finite


def tried_factor(
    loss_of: Callable[..., float], samples: int, refusals: tuple[type[Exception], ...]
) -> tuple[float, str]:
    """Find what the loss multiplies a sample's own gradient by, and name how it reduces samples.

    The loss of two samples together is compared with that of each alone.

    Parameters
    ----------
    loss_of : callable (*rows) -> float
        The loss of these samples.
    samples : int
    refusals : exception classes
        Raised, besides ours, by a loss that does not take so few samples.
    """
    if samples == 1:
        return 1.0, ONE_SAMPLE
    refused: tuple[type[Exception], ...] = (ThroughTimeError, *refusals)
    try:
        alone = {row: loss_of(row) for row in range(min(samples, _TRIED))}
        # One sample may be spoiled: a NaN is no reason to scale the others differently.
        a, b = ([row for row, value in alone.items() if isfinite(value)] + [0, 1])[:2]
        first, second, both = alone[a], alone[b], loss_of(a, b)
    except refused as error:
        return 1.0, f"{FAILS} ({type(error).__name__}), {UNDONE}"
    if not isfinite(first + second + both):
        return 1.0, f"not known: the loss is not finite, {UNDONE}"
    tolerance = 1e-4 * max(abs(first), abs(second), abs(both), 1e-30)
    if abs(both - (first + second) / 2) <= tolerance:
        return 1.0 / samples, MEAN
    if abs(both - (first + second)) <= tolerance:
        return 1.0, SUM
    return 1.0, f"couples samples: the loss of two is neither the mean nor the sum of their losses, {UNDONE}"
