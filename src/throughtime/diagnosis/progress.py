"""Shows the progress of many passes, if they take long."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_WORTH_SHOWING = 5.0  # seconds
_MEASURED = 2  # passes after which the rest is estimated; the first one compiles


class Passes:
    """Counts passes; shows a bar with their name on the error stream if they will take long."""

    def __init__(self, count: int, name: str = "Passes with exchanged inputs") -> None:
        self._count, self._done, self._name = count, 0, name
        self._bar: TaskID | None = None
        self._times = [time.monotonic()]
        self._progress: Progress | None = None

    def __enter__(self) -> Passes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def advance(self) -> None:
        """Count a pass."""
        self._done += 1
        self._times.append(time.monotonic())
        if self._done == _MEASURED:
            seconds = (self._times[-1] - self._times[-2]) * (self._count - self._done)
            if seconds > _WORTH_SHOWING:
                self._show(seconds)
        if self._progress is not None and self._bar is not None:
            self._progress.update(self._bar, completed=self._done)

    def _show(self, seconds: float) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True, force_jupyter=False), transient=True)
        words = f"{self._name}, about {seconds:.0f} s"
        self._bar = self._progress.add_task(words, total=self._count)
        self._progress.start()
