"""Protects training from its monitor.

Warnings wait in a queue, a logger may fail, and work that needs no model may run in a second thread.
"""

import warnings
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from throughtime._errors import MonitorError, ThroughTimeWarning
from throughtime.diagnostics.alarm import Alarm
from throughtime.loggers.record import Record

OnAlarm = Callable[[Alarm], None]
_MOST_FAILURES = 3  # of a logger, in a row: a server that is down would delay every record


class WarningQueue:
    """Collects warnings and alarms from any thread; issues each once, in the training thread.

    Without `on_alarm` an alarm is a warning; one whose name is in `stops` turns `should_stop` True.
    """

    def __init__(self, on_alarm: OnAlarm | None, stops: frozenset[str]) -> None:
        self.alarms: list[Alarm] = []
        self.should_stop = False
        self._on_alarm, self._stops = on_alarm, stops
        self._warned: set[str] = set()
        self._waiting: deque[str | Alarm] = deque()

    def leave(self, notice: str | Alarm) -> None:
        """Add the text of a warning, or an alarm, for `deliver`; from any thread."""
        self._waiting.append(notice)

    def deliver(self) -> None:
        """Issue the warnings and alarms in the queue."""
        while self._waiting:
            notice = self._waiting.popleft()
            if isinstance(notice, Alarm):
                self._give(notice)
            else:
                self._warn(notice)

    def guard(self, action: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function that must not stop training: an error becomes a warning."""
        try:
            return action(*arguments)
        except Exception as error:  # no error of the monitor may stop training
            self.leave(f"The monitor could not record: {type(error).__name__}: {error}")
            return None

    def pass_on(self, caught: list[warnings.WarningMessage]) -> None:
        """Issue the warnings that a pass of the model raised."""
        for each in caught:
            # The user's filters decide about a framework's warnings.
            if not issubclass(each.category, ThroughTimeWarning):
                warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
            else:
                self.leave(str(each.message))

    def _give(self, alarm: Alarm) -> None:
        if any((alarm.name, alarm.layer) == (given.name, given.layer) for given in self.alarms):
            return
        self.alarms.append(alarm)
        if alarm.name in self._stops:
            self.should_stop = True
        if self._on_alarm is not None:
            self.guard(self._on_alarm, alarm)
        else:
            self._warn(str(alarm))

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            warnings.warn(text, ThroughTimeWarning, stacklevel=5)


class LoggerGroup:
    """The loggers of one monitor; `warn` is called with a text when one of them fails for the first time."""

    def __init__(self, loggers: Any, warn: Callable[[str], None]) -> None:
        self._loggers: Iterable[Any] = list(loggers) if isinstance(loggers, (list, tuple)) else [loggers]
        self._warn = warn
        self._in_a_row: dict[int, int] = {}  # failures in a row, by logger; absent before its first failure
        wrong = [type(logger).__name__ for logger in self._loggers if not _can(logger, "write")]
        if wrong:
            raise MonitorError(f"loggers= takes objects with write(record), not {', '.join(wrong)}.")

    def __bool__(self) -> bool:
        return bool(self._loggers)

    def begin(self) -> None:
        """Call `begin` of the loggers that have it, in the training thread."""
        for logger in self._loggers:
            if _can(logger, "begin"):
                self._guard(logger, logger.begin)

    def write(self, record: Record) -> None:
        """Write a record to each logger that has not failed too often in a row."""
        for logger in self._loggers:
            if self._in_a_row.get(id(logger), 0) < _MOST_FAILURES:
                self._guard(logger, logger.write, record)

    def close(self) -> None:
        """Call `close` of the loggers that have it."""
        for logger in self._loggers:
            if _can(logger, "close"):
                self._guard(logger, logger.close)

    def _guard(self, logger: Any, action: Callable[..., Any], *arguments: Any) -> None:
        failures = self._in_a_row.get(id(logger))
        try:
            action(*arguments)
        except Exception as error:  # no error of a logger may stop training
            self._in_a_row[id(logger)] = (failures or 0) + 1
            if failures is None:
                self._warn(
                    f"The logger {type(logger).__name__} failed: {type(error).__name__}: {error} Training "
                    f"continues. The monitor stops calling it after {_MOST_FAILURES} failures in a row, "
                    "without another warning."
                )
        else:
            if failures:
                self._in_a_row[id(logger)] = 0


def _can(logger: Any, name: str) -> bool:
    return callable(getattr(logger, name, None))


class BackgroundWorker:
    """Runs jobs one after another: each at once, or `in_background`, where one runs while another waits."""

    def __init__(self, *, in_background: bool) -> None:
        # A pool completes its work before the interpreter exits.
        self._pool = ThreadPoolExecutor(1, "throughtime-monitor") if in_background else None
        self._under_way: deque[Future[Any]] = deque()

    def put(self, job: Callable[..., Any], *arguments: Any) -> None:
        """Submit a job; return when all earlier jobs are done, and raise the errors that they raised."""
        if self._pool is None:
            job(*arguments)
            return
        self._under_way.append(self._pool.submit(job, *arguments))
        self._wait(1)

    def drain(self) -> None:
        """Wait until all jobs are done."""
        self._wait(0)

    def close(self) -> None:
        """Wait until all jobs are done, and end the thread."""
        if self._pool is not None:
            self._pool.shutdown()

    def _wait(self, most: int) -> None:
        while len(self._under_way) > most:
            self._under_way.popleft().result()
