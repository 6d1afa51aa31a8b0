"""What tables share: a table of another model's numbers is not continued."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from throughtime._errors import MonitorError


def check_columns(present: Iterable[str], wanted: Iterable[str], path: Path) -> None:
    """Refuse columns that differ, but for those of the training loop, which may come late and be absent.

    Raises
    ------
    MonitorError
    """
    if differing := sorted(name for name in {*present} ^ {*wanted} if not _is_of_the_loop(name)):
        raise MonitorError(f"{path} has other columns: {', '.join(differing)}. Give another path.")


def _is_of_the_loop(column: str) -> bool:
    """Whether a number has no layer: `throughtime/<quantity>`."""
    return column.startswith("throughtime/") and column.count("/") == 1
