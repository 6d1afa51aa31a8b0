"""The settings of a monitor, checked before anything is recorded."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np

from throughtime._arguments.rules import choice, either, function, names, several, whole
from throughtime._errors import MonitorError
from throughtime._memory.budget import as_bytes

from .alarms import NAMES
from .guards import LoggerGroup
from .place import Place
from .schedules import Schedule

RULES = {
    "every": either(function, whole(1)),
    "quantities": names,
    "on_alarm": function,
    "stop_on": several(choice(*NAMES)),
}
HALF = "half"  # of the window, as a lag
_NEEDED = {
    "explosion": "hidden_gradient",
    "vanishing": "hidden_gradient",
    "saturation": "gate_activation",
    "dead_gradient": "output_gradient",
}


@dataclass(frozen=True)
class Settings:
    """The arguments of `Monitor` that define what is recorded, from which batch, and to which place."""

    place: Place
    batch: tuple[Any, Any, Any]
    level: str | frozenset[str]
    layers: Any
    budget: int | None
    vanishing_lag: int | str | None
    loggers: LoggerGroup
    background: bool
    schedule: str = ""

    @property
    def alarms_off(self) -> list[str]:
        """Alarms that are turned off, or whose quantities are not captured."""
        asked = None if isinstance(self.level, str) else self.level
        lacking = {name for name, needed in _NEEDED.items() if asked is not None and needed not in asked}
        off = lacking | ({"vanishing"} if self.vanishing_lag is None else set())
        return [name for name in NAMES if name in off]


def checked_batch(batch: Any) -> tuple[Any, Any, Any]:
    if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
        raise MonitorError(
            f"batch= is a pair (x, y), or (x, y, sample_weight), not {type(batch).__name__}: gradients need "
            "targets."
        )
    x, y, *weight = batch
    return x, y, weight[0] if weight else None


def checked_lag(lag: Any) -> int | str | None:
    """Return a whole number, 1 or more, or "half"; None if the alarm is off."""
    if lag is None or (isinstance(lag, (bool, np.bool_)) and not lag):
        return None
    if isinstance(lag, str) and lag == HALF:
        return HALF
    if isinstance(lag, bool) or not isinstance(lag, Integral) or lag < 1:
        raise MonitorError(
            f"vanishing_lag={lag!r} has to be a whole number of timesteps, 1 or more, {HALF!r} for half of "
            "the window, or None to turn this alarm off."
        )
    return int(lag)


def checked_count(count: Any) -> int:
    """Return the number of training steps."""
    if isinstance(count, bool) or not isinstance(count, Integral) or count < 0:
        raise MonitorError(
            f"step({count!r}): expected the number of training steps made, a whole number, 0 or more."
        )
    return int(count)


def checked_budget(budget: Any) -> int | None:
    """Return the number of bytes of 2e9 or "2 GB"; None for no budget."""
    amount = None if budget is None else as_bytes(budget)
    if budget is not None and not amount:
        raise MonitorError(f"budget={budget!r}: expected a number of bytes, 1 or more, or a text: '2 GB'.")
    return amount


def tried(schedule: Schedule, step: int) -> Schedule:
    """Try a schedule on one step, before it is used for hours.

    Raises
    ------
    MonitorError
        The schedule raises an error.
    """
    try:
        schedule(step)
    except Exception as error:  # the user's function may raise anything
        raise MonitorError(
            f"every= raised for step {step}, {type(error).__name__}: {error}. Pass a function that takes a "
            "training step and returns whether to record it."
        ) from error
    return schedule


def schedule_in_words(every: Any) -> str:
    """Return the name of a schedule, which the run stores."""
    if isinstance(every, Integral):
        return f"every {every}"
    return str(getattr(every, "__qualname__", None) or type(every).__qualname__)
