"""Schedules: functions that map a training step, a whole number from 0, to whether it is recorded."""

from __future__ import annotations

from collections.abc import Callable
from math import floor, log10

from throughtime._errors import MonitorError
from throughtime._inputs import takes
from throughtime._inputs.rules import whole

Schedule = Callable[[int], bool]


@takes(MonitorError, steps=whole(1))
def every(steps: int) -> Schedule:
    """Record each time that number of training steps has passed.

    Parameters
    ----------
    steps : int
        At least 1.

    Returns
    -------
    callable (int) -> bool

    Examples
    --------
    >>> from throughtime import every
    >>> [step for step in range(9) if every(4)(step)]
    [0, 4, 8]
    """
    return _name(lambda step: step % steps == 0, f"every {steps}")


@takes(MonitorError, per_decade=whole(1))
def logarithmic(per_decade: int = 10) -> Schedule:
    """Record often at first, when most changes, then less often: `per_decade` times per tenfold step.

    Parameters
    ----------
    per_decade : int
        At least 1.

    Returns
    -------
    callable (int) -> bool

    Examples
    --------
    >>> from throughtime import logarithmic
    >>> [step for step in range(120) if logarithmic(4)(step)]
    [0, 1, 2, 4, 6, 10, 18, 32, 57, 100]
    """

    def reached(step: int) -> int:
        return floor(per_decade * log10(step) + 1e-9)

    return _name(
        lambda step: step < 2 or reached(step) > reached(step - 1),
        f"logarithmic, {per_decade} per tenfold step",
    )


def _name(schedule: Schedule, words: str) -> Schedule:
    """Give a schedule the name that the run stores."""
    schedule.__qualname__ = words
    return schedule
