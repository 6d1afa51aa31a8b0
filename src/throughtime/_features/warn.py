"""`warn`: a `ThroughTimeWarning` that points at the caller's own line, however deep we noticed."""

from __future__ import annotations

import sys
import warnings

from throughtime._errors import ThroughTimeWarning


def warn(message: str) -> None:
    """Warn with the first frame outside throughtime as the place."""
    frame = sys._getframe(1)
    level = 2
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
        level += 1
    warnings.warn(message, ThroughTimeWarning, stacklevel=level)


def _is_ours(module: str) -> bool:
    # contextlib calls our context managers for us.
    return module.startswith("throughtime.") or module == "contextlib"
