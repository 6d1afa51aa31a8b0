"""The tests by which alarms, verdicts, the live page and reports judge a layer; each is defined only here.

They take numbers and return an answer; other modules measure the numbers and use the answer.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from throughtime.diagnostics import thresholds

from .lags import Floats
from .saturation import RANGES
from .statistics import median_interval

YES, NO, UNCLEAR = "yes", "no", "unclear"
# Such a gate remembers by staying open: no fault.
MEMORY_GATE = {"lstm": "forget", "conv_lstm": "forget", "gru": "update"}


def answer(low: float, high: float, threshold: float = thresholds.REACHES) -> str:
    """Return "yes" if all of an interval reaches a threshold, "no" if none of it does, else "unclear".

    >>> answer(0.02, 0.5), answer(0.001, 0.002), answer(0.001, 0.5), answer(np.nan, np.nan)
    ('yes', 'no', 'unclear', 'unclear')
    """
    if low >= threshold * (1 - thresholds.ROUNDING):
        return YES
    return NO if high < threshold * (1 - thresholds.ROUNDING) else UNCLEAR


@dataclass(frozen=True)
class Growth:
    """Largest gradient in the window relative to that at lag 0, median over samples, and its lag.

    `low` is the low end of the interval; NaN if no sample has a gradient at lag 0.
    """

    factor: float = math.nan
    low: float = math.nan
    lag: int = 0

    @property
    def is_sure(self) -> bool:
        """Whether the whole interval shows at least tenfold growth."""
        return self.low >= thresholds.GROWS * (1 - thresholds.ROUNDING)


def growth(log_ratios: Floats) -> Growth:
    """Measure how much larger gradients become than at lag 0.

    `log_ratios` (sample, lag) are natural logarithms, for error that enters at one step; NaN if there is
    none.

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
    """Whether gradients grow in the window and harm training.

    Growth alone is no fault: a network that has learned a long dependency has its largest gradient there. It
    does harm if the loss has risen above that of the first record. It also does harm if the layer's states
    are unbounded and the next optimizer step overwrites the recurrent weights, unless the loss falls.

    `step` is that step relative to the norm of the weights. `losses` are those of the records so far, the
    current one last; a single one is no history. At `solved` or below, the task counts as solved.

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
    is_falling = (
        len(losses) > 1
        and losses[-1] < thresholds.FALLING * losses[0]
        and losses[-1] <= thresholds.WORSE * min(losses)
    )
    return not is_falling and not is_bounded and step >= thresholds.THROWN


def has_risen(losses: Sequence[float]) -> bool:
    """Whether the last of the losses of a run is far above the first one."""
    return len(losses) > 1 and losses[-1] > thresholds.WORSE * losses[0]


def is_bounded(attributes: Mapping[Any, Any]) -> bool:
    """Whether a layer's hidden state stays between two limits, by its activation."""
    return attributes.get("activation") in RANGES


def saturated_gates(
    left: Iterable[float], right: Iterable[float], gates: Sequence[str], kind: str
) -> Iterator[tuple[str, str, float]]:
    """Yield the gates that are nearly always at one end of their range, with the end and the share.

    `left` and `right` are the shares of values at either end, by gate. A forget (LSTM) or update (GRU) gate
    that stays open remembers, and is no fault. Neither is an LSTM's input gate that stays shut meanwhile: the
    cell keeps what it has, as after chrono initialisation.

    >>> list(saturated_gates([0.95, 0.0], [0.0, 0.2], ["input", "forget"], "lstm"))
    [('input', 'shut', 0.95)]
    >>> list(saturated_gates([0.95, 0.0], [0.0, 0.9], ["input", "forget"], "lstm"))
    []
    """
    shares = {gate: sides for gate, *sides in zip(gates, left, right, strict=True)}
    memory = MEMORY_GATE.get(kind, "")
    remembers = memory in shares and shares[memory][1] >= thresholds.MOSTLY
    for gate, (shut, is_open) in shares.items():
        if shut >= thresholds.SATURATED and not (remembers and gate == "input"):
            yield gate, "shut", float(shut)
        if is_open >= thresholds.SATURATED and gate != memory:
            yield gate, "open", float(is_open)
