"""The settings of a monitor, checked before anything is recorded."""

from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np

from throughtime._common.memory.budget import as_bytes
from throughtime._errors import MonitorError
from throughtime._inputs import rules

from .alarms import NAMES
from .guards import LoggerGroup
from .place import MODES, Place
from .schedules import Schedule

HALF = "half"  # of the window, as a lag


def _lag(value: Any) -> int | str | None:
    is_off = value is None or (isinstance(value, bool | np.bool_) and not value)
    return None if is_off else HALF if str(value) == HALF else rules.whole(1).take(value)


def _bytes(value: Any) -> int:
    amount = as_bytes(value)
    rules.require(amount)
    return amount or 0


RULES = {
    "every": rules.either(rules.function, rules.whole(1)),
    "mode": rules.choice(*MODES),
    "quantities": rules.names,
    "on_alarm": rules.function,
    "stop_on": rules.several(rules.choice(*NAMES)),
}
LAG = rules.Rule(
    _lag,
    f"a whole number of timesteps, 1 or more, {HALF!r} for half of the window, or None to turn the alarm off",
)
BUDGET = rules.optional(rules.Rule(_bytes, "a number of bytes, 1 or more, or a text: '2 GB'"))
_STEPS = "a whole number, 0 or more; or in JAX a model, such as jax.tree_util.Partial(function, parameters)"
COUNT = replace(rules.whole(0), expected=_STEPS)
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
    of_all: bool = False

    @property
    def alarms_off(self) -> list[str]:
        """Alarms that are turned off, or whose quantities are not captured."""
        asked = None if isinstance(self.level, str) else self.level
        lacking = {name for name, needed in _NEEDED.items() if asked is not None and needed not in asked}
        off = lacking | ({"vanishing"} if self.vanishing_lag is None else set())
        return [name for name in NAMES if name in off]


def check_batch(batch: Any) -> tuple[Any, Any, Any]:
    if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
        raise MonitorError(
            f"batch= is a pair (x, y), or (x, y, sample_weight), not {type(batch).__name__}: gradients need "
            "targets."
        )
    x, y, *weight = batch
    return x, y, weight[0] if weight else None


def try_schedule(schedule: Schedule) -> None:
    """Try a schedule on step 1, before it is used for hours; its error becomes a MonitorError."""
    try:
        schedule(1)
    except Exception as error:  # the user's function may raise anything
        raise MonitorError(
            f"every= raised for step 1, {type(error).__name__}: {error}. Pass a function that takes a "
            "training step and returns whether to record it."
        ) from error


def schedule_in_words(every: Any) -> str:
    """Return the name of a schedule, which the run stores."""
    if isinstance(every, Integral):
        return f"every {every}"
    return str(getattr(every, "__qualname__", None) or type(every).__qualname__)
