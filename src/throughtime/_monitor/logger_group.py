"""Writes records to a monitor's loggers. If one fails, the monitor warns once and training continues."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from throughtime._errors import MonitorError
from throughtime.loggers.record import Record

Warn = Callable[[str], None]
_MOST_FAILURES = 3  # in a row: a server that is down would delay every record


class LoggerGroup:
    """The loggers of one monitor.

    Parameters
    ----------
    loggers : a logger, or list or tuple of loggers
        Objects with `write(record)`, and optionally `begin()`, which is called in the training thread, and
        `close()`.
    warn : callable (str)

    Raises
    ------
    MonitorError
        A logger has no `write`.
    """

    def __init__(self, loggers: Any, warn: Warn) -> None:
        self._loggers: Iterable[Any] = list(loggers) if isinstance(loggers, (list, tuple)) else [loggers]
        self._warn = warn
        self._in_a_row: dict[
            int, int
        ] = {}  # consecutive failures, by logger; absent before its first failure
        wrong = [type(logger).__name__ for logger in self._loggers if not _can(logger, "write")]
        if wrong:
            raise MonitorError(f"loggers= takes objects with write(record), not {', '.join(wrong)}.")

    def __bool__(self) -> bool:
        return bool(self._loggers)

    def begin(self) -> None:
        """Call `begin` of the loggers that have it, in the training thread."""
        for logger in self._loggers:
            if _can(logger, "begin"):
                self._guarded(logger, logger.begin)

    def write(self, record: Record) -> None:
        """Write a record to each logger that has not failed too often in a row."""
        for logger in self._loggers:
            if self._in_a_row.get(id(logger), 0) < _MOST_FAILURES:
                self._guarded(logger, logger.write, record)

    def close(self) -> None:
        """Call `close` of the loggers that have it."""
        for logger in self._loggers:
            if _can(logger, "close"):
                self._guarded(logger, logger.close)

    def _guarded(self, logger: Any, action: Callable[..., Any], *arguments: Any) -> None:
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
