"""A check that tables share: a logger does not append to a table with the numbers of another model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from throughtime._errors import MonitorError


def check_columns(present: Iterable[str], wanted: Iterable[str], path: Path) -> None:
    """Refuse columns that differ. Columns of the training loop are optional and may be added later.

    Raises
    ------
    MonitorError
        Other columns differ.
    """
    if differing := sorted(name for name in {*present} ^ {*wanted} if not _is_of_the_loop(name)):
        raise MonitorError(
            f"The columns of {path} differ from those of this record: {', '.join(differing)}. "
            "Pass another path."
        )


def _is_of_the_loop(column: str) -> bool:
    """Whether a key names no layer: `throughtime/<quantity>` or `detail/<quantity>`."""
    return column.startswith(("throughtime/", "detail/")) and column.count("/") == 1
