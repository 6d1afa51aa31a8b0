"""Hands a record to a monitor's sinks: one that fails is told once, and training goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from throughtime._errors import MonitorError

from .record import Record

Warn = Callable[[str], None]
_MOST_FAILURES = 3  # in a row: a server that is gone would hold up every record


class Outlets:
    """The sinks of one monitor.

    Parameters
    ----------
    sinks : a sink, or list or tuple of sinks
        Objects with `write(record)`; with `begin()` if they look for what is of the training thread, and
        `close()` if they have something to close.
    warn : callable (str)

    Raises
    ------
    MonitorError
        One of them has no `write`.
    """

    def __init__(self, sinks: Any, warn: Warn) -> None:
        self._sinks: Iterable[Any] = list(sinks) if isinstance(sinks, (list, tuple)) else [sinks]
        self._warn = warn
        self._in_a_row: dict[int, int] = {}  # failures of a sink, from the first one on
        wrong = [type(sink).__name__ for sink in self._sinks if not _can(sink, "write")]
        if wrong:
            raise MonitorError(f"sinks= takes objects with write(record), not {', '.join(wrong)}.")

    def __bool__(self) -> bool:
        return bool(self._sinks)

    def begin(self) -> None:
        """Let those look around that want to, in the thread that trains."""
        for sink in self._sinks:
            if _can(sink, "begin"):
                self._guarded(sink, sink.begin)

    def write(self, record: Record) -> None:
        """Give a record to each; one that failed may do better now, unless it did not for some time."""
        for sink in self._sinks:
            if self._in_a_row.get(id(sink), 0) < _MOST_FAILURES:
                self._guarded(sink, sink.write, record)

    def close(self) -> None:
        """Close those that can be closed."""
        for sink in self._sinks:
            if _can(sink, "close"):
                self._guarded(sink, sink.close)

    def _guarded(self, sink: Any, action: Callable[..., Any], *arguments: Any) -> None:
        failures = self._in_a_row.get(id(sink))
        try:
            action(*arguments)
        except Exception as error:  # whatever it is, training goes on
            self._in_a_row[id(sink)] = (failures or 0) + 1
            if failures is None:
                self._warn(
                    f"The sink {type(sink).__name__} failed: {type(error).__name__}: {error} Training goes "
                    f"on. After {_MOST_FAILURES} failures in a row the sink is left out; none is told again."
                )
        else:
            if failures:
                self._in_a_row[id(sink)] = 0


def _can(sink: Any, name: str) -> bool:
    return callable(getattr(sink, name, None))
