"""Shows the progress of many passes, if they take long."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_WORTH_SHOWING = 5.0  # seconds
_MEASURED = 2  # passes after which the rest is estimated; the first one compiles


class Passes:
    """Counts passes; shows a bar with their name on the error stream if they will take long."""

    def __init__(self, count: int, name: str = "Passes with exchanged inputs") -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True, force_jupyter=False), transient=True)
        self._bar, self._name = self._progress.add_task(name, total=count), name
        self._time = time.monotonic()

    def __enter__(self) -> Passes:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress.live.is_started:
            self._progress.stop()

    def advance(self) -> None:
        """Count a pass."""
        self._progress.advance(self._bar)
        task, before, self._time = self._progress.tasks[0], self._time, time.monotonic()
        seconds = (self._time - before) * (task.remaining or 0)
        if task.completed == _MEASURED and seconds > _WORTH_SHOWING:
            self._progress.update(self._bar, description=f"{self._name}, about {seconds:.0f} s")
            self._progress.start()
