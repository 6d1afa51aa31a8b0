"""Raises KeyboardInterrupt before a line of Python chosen by number, wherever that line is."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

COUNT = int(os.environ.get("THROUGHTIME_INTERRUPTS", "12"))  # for each model; benchmarks/faults asks for more
_OURS = "throughtime"


class _Lines:
    """Counts lines of this library, and of the contexts it enters, and raises before one of them runs."""

    def __init__(self, at: int | None) -> None:
        self.count, self._at = 0, at

    def __call__(self, frame: Any, event: str, _: Any) -> Any:
        name = frame.f_code.co_filename
        if name.endswith("contextlib.py") and frame.f_back is not None:
            name = frame.f_back.f_code.co_filename
        if _OURS not in name:
            return None
        if event == "line":
            self.count += 1
            if self.count == self._at:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self


def lines_of(function: Callable[[], object], at: int | None = None) -> int:
    """Run a function, with an interrupt before its line number `at`; returns how many lines ran."""
    lines = _Lines(at)
    before = sys.gettrace()
    sys.settrace(lines)
    try:
        function()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return lines.count


def chosen(count: int, seed: int) -> Iterator[int]:
    """Numbers of lines: at random over the whole capture, and as many in its last part, which puts back."""
    rng = np.random.default_rng(seed)
    yield from rng.integers(1, count + 1, COUNT // 2).tolist()
    yield from (count - rng.integers(0, max(1, count // 5), COUNT - COUNT // 2)).tolist()
