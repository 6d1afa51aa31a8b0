"""A network of the census: how it is made, trained and asked, and what is known of it by construction."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from . import tasks

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Case:
    """One network.

    Attributes
    ----------
    name : str
        Its family first.
    task : Task
    lag : int
        The dependency length that is asked about.
    cell, units, head, both, layers
        See `Reader`.
    start : callable (model), optional
        Sets its weights before training.
    optimizer : "adam" or "sgd"
    rate : float
    clip : float, optional
        Norm of the gradient in training.
    until : float, optional
        Training ends at this fraction of the loss of a constant; None for a network that is not trained.
    updates : int
        At most.
    use : "uses", "unused" or ""
        By construction, where it is.
    make : callable (), optional
        Of a network that is no `Reader`.
    framework : "torch" or "keras"
    """

    name: str
    task: tasks.Task
    lag: int
    cell: str = "lstm"
    units: int = 16
    head: str = "last"
    both: bool = False
    layers: int = 1
    start: Callable[[Any], None] | None = None
    optimizer: str = "adam"
    rate: float = 1e-3
    clip: float | None = None
    until: float | None = None
    updates: int = 2000
    use: str = ""
    make: Callable[[], Any] | None = None
    framework: str = "torch"

    @property
    def half(self) -> str:
        """The half it belongs to, by a hash of its name that never changes."""
        return "choose" if hashlib.sha256(self.name.encode()).digest()[0] % 2 else "judge"

    @property
    def ways(self) -> tuple[str, ...]:
        return ("forward", "backward") if self.both else ("forward",)


def chosen(cases: Iterable[Case], half: str, only: str) -> list[Case]:
    return [case for case in cases if half in ("all", case.half) and only in case.name]
