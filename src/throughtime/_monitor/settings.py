"""What a monitor was asked for, checked before anything is recorded."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from throughtime._budget import as_bytes
from throughtime._errors import MonitorError

from .alarms import NAMES
from .outlets import Outlets
from .schedules import Schedule


@dataclass(frozen=True)
class Settings:
    """The arguments of `Monitor` that say what is recorded of which batch, and where it goes."""

    store: str | os.PathLike[str]
    batch: tuple[Any, Any, Any]
    level: str | frozenset[str]
    layers: Any
    budget: int | None
    vanishing_lag: int | None
    sinks: Outlets
    background: bool
    schedule: str = ""


def checked_batch(batch: Any) -> tuple[Any, Any, Any]:
    if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
        raise MonitorError(
            f"batch= is a pair (x, y), or (x, y, sample_weight), not {type(batch).__name__}: gradients need "
            "labels."
        )
    x, y, *weight = batch
    return x, y, weight[0] if weight else None


def checked_lag(lag: Any) -> Any:
    """Take a whole number, 1 or more, or none."""
    if lag is not None and (isinstance(lag, bool) or not isinstance(lag, Integral) or lag < 1):
        raise MonitorError(f"vanishing_lag={lag!r} is a number of whole steps, 1 or more.")
    return lag


def checked_budget(budget: Any) -> int | None:
    """Read a number of bytes, or a text such as "2 GB"; None for no budget."""
    amount = None if budget is None else as_bytes(budget)
    if budget is not None and not amount:
        raise MonitorError(f"budget={budget!r} is a number of bytes, 1 or more, or a text, '2 GB'.")
    return amount


def tried(schedule: Schedule, step: int) -> Schedule:
    """Ask a schedule for one step before hours are trained by it.

    Raises
    ------
    MonitorError
        It raises.
    """
    try:
        schedule(step)
    except Exception as error:  # whatever a function of the user's raises
        raise MonitorError(
            f"every= raised for step {step}, {type(error).__name__}: {error}. It takes a training step and "
            "returns whether to record."
        ) from error
    return schedule


def checked_alarms(names: str | Collection[str]) -> frozenset[str]:
    if not isinstance(names, Collection) or not all(isinstance(name, str) for name in names):
        raise MonitorError(f"stop_on={names!r}: it takes names of alarms, which are {', '.join(NAMES)}.")
    asked = frozenset({names} if isinstance(names, str) else names)
    if unknown := asked - set(NAMES):
        raise MonitorError(f"stop_on={sorted(unknown)}: alarms are called {', '.join(NAMES)}.")
    return asked


def schedule_in_words(every: Any) -> str:
    """Name a schedule for who reads the run later."""
    if isinstance(every, int):
        return f"every {every}"
    return str(getattr(every, "__qualname__", None) or type(every).__qualname__)
