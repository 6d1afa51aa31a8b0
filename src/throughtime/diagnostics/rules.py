"""The tests by which alarms, verdicts, the live page and reports judge a layer: each stands here once.

Numbers in, an answer out: what is measured, and what is made of the answer, is told elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from throughtime.diagnostics.thresholds import (
    FALLING,
    GROWS,
    REACHES,
    ROUNDING,
    SATURATED,
    THROWN,
    WORSE,
)

from .lags import Floats
from .median_interval import median_interval
from .saturation import RANGES

YES, NO, UNCLEAR = "yes", "no", "unclear"
_MEMORY = {"lstm": "forget", "gru": "update"}  # a gate that stays open remembers: no fault


def answer(low: float, high: float, threshold: float = REACHES) -> str:
    """Answer "yes" where all of an interval reaches a threshold, "no" where none of it does.

    Examples
    --------
    >>> answer(0.02, 0.5), answer(0.001, 0.002), answer(0.001, 0.5), answer(np.nan, np.nan)
    ('yes', 'no', 'unclear', 'unclear')
    """
    if low >= threshold * (1 - ROUNDING):
        return YES
    return NO if high < threshold * (1 - ROUNDING) else UNCLEAR


@dataclass(frozen=True)
class Growth:
    """Largest gradient within the window, times that at lag 0: median over samples.

    Attributes
    ----------
    factor, low : float
        `low` is the low end of the interval; NaN where no sample has a gradient at lag 0.
    lag : int
        At which the median over samples is largest.
    """

    factor: float = math.nan
    low: float = math.nan
    lag: int = 0

    @property
    def is_sure(self) -> bool:
        """Whether it is tenfold at least, by the whole of its interval."""
        return self.low >= GROWS * (1 - ROUNDING)


def growth(log_ratios: Floats) -> Growth:
    """Find how much larger than at lag 0 gradients become.

    Parameters
    ----------
    log_ratios : ndarray (sample, lag)
        Natural logarithms of the ratio to lag 0, of error that enters at one step; NaN where there is none.

    Examples
    --------
    >>> found = growth(np.log([[1.0, 2.0, 32.0]] * 8))
    >>> found.is_sure, round(found.factor, 3), found.lag
    (True, 32.0, 2)
    """
    known = log_ratios[~np.isnan(log_ratios).all(axis=1)]
    if not len(known):
        return Growth()
    middle, low, _ = (float(each) for each in median_interval(np.nanmax(known, axis=1)))
    lag = int(np.nanargmax(median_interval(known)[0]))
    with np.errstate(over="ignore"):
        return Growth(float(np.exp(middle)), float(np.exp(middle if len(known) == 1 else low)), lag)


def explodes(
    growth: Growth,
    step: float,
    losses: Sequence[float] = (),
    *,
    is_bounded: bool,
    solved: float | None = None,
) -> bool:
    """Whether gradients grow within the window and training comes undone by it.

    Growth alone is no fault: a network that has learned a long dependency has its largest gradient there. It
    does harm where the loss has risen above the first record's. It does as well where the next step of the
    optimizer throws the recurrent weights away, of a layer whose states have no bound, unless the loss falls.

    Parameters
    ----------
    growth : Growth
    step : float
        Change of the recurrent weights by the next step of the optimizer, times their norm.
    losses : sequence of float
        Of the records so far, this one last; one is no history.
    is_bounded : bool
        Whether the layer's states stay between two limits, as under tanh.
    solved : float, optional
        Loss at or below which nothing needs to be changed.

    Examples
    --------
    >>> large = Growth(2e4, 1e4, 30)
    >>> explodes(large, step=9.0, is_bounded=False), explodes(large, step=9.0, is_bounded=True)
    (True, False)
    >>> explodes(large, 9.0, (1.0, 0.5), is_bounded=False), explodes(large, 0.0, (1.0, 5.0), is_bounded=True)
    (False, True)
    """
    if not growth.is_sure or (solved is not None and losses and losses[-1] <= solved):
        return False
    if has_risen(losses):
        return True
    is_falling = len(losses) > 1 and losses[-1] < FALLING * losses[0] and losses[-1] <= WORSE * min(losses)
    return not is_falling and not is_bounded and step >= THROWN


def has_risen(losses: Sequence[float]) -> bool:
    """Whether the last of the losses of a run is far above the first one."""
    return len(losses) > 1 and losses[-1] > WORSE * losses[0]


def is_bounded(attributes: Mapping[Any, Any]) -> bool:
    """Whether a layer's hidden state stays between two limits, by its activation."""
    return attributes.get("activation") in RANGES


def saturated(
    left: Iterable[float], right: Iterable[float], gates: Sequence[str], kind: str
) -> Iterator[tuple[str, str, float]]:
    """Name the gates that stand at one end of their range nearly always, with the end and the share.

    Parameters
    ----------
    left, right : iterable of float
        Share of the values at either end, a gate each; NaN where that is not known.
    gates : sequence of str
    kind : str
        A forget (LSTM) or update (GRU) gate that stays open remembers, and is no fault.

    Examples
    --------
    >>> list(saturated([0.95, 0.0], [0.0, 1.0], ["input", "forget"], "lstm"))
    [('input', 'shut', 0.95)]
    """
    for gate, shut, is_open in zip(gates, left, right, strict=True):
        if shut >= SATURATED:
            yield gate, "shut", float(shut)
        if is_open >= SATURATED and gate != _MEMORY.get(kind):
            yield gate, "open", float(is_open)
