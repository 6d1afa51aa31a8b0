"""What `throughtime.mark` names outside of every loop: its key in a pass, and its arrays after one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from throughtime.adapters.marking import Marked

if TYPE_CHECKING:
    from .collect import Pass


def key(number: int, name: str) -> str:
    """Name a tensor among all that a pass returns, by the order of the marks.

    Examples
    --------
    >>> key(2, "memory")
    'named.2.memory'
    """
    return f"named.{number}.{name}"


def read(done: Pass) -> Iterator[Marked]:
    """Bring every tensor and its gradient to NumPy."""
    for each in done.program.named:
        yield Marked(each.rpartition(".")[2], done.tensor(each), done.gradient(each))
