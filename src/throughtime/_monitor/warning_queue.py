"""Warnings and alarms during training: each is issued once, and none is an exception."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable
from typing import Any

from throughtime._errors import ThroughTimeWarning
from throughtime.diagnostics.alarm import Alarm

OnAlarm = Callable[[Alarm], None]


class WarningQueue:
    """Collects warnings and alarms from any thread; issues each once, in the training thread.

    Parameters
    ----------
    on_alarm : callable (Alarm) or None
        If None, an alarm is a warning.
    stops : frozenset of str
        Names of the alarms that turn `should_stop` True.
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

    def guarded(self, action: Callable[..., Any], *arguments: Any) -> Any:
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
            self.guarded(self._on_alarm, alarm)
        else:
            self._warn(str(alarm))

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            warnings.warn(text, ThroughTimeWarning, stacklevel=5)
