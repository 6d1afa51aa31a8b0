"""Loggers that a monitor hands its numbers to: one file each, one method, `write(step, values)`.

Values are plain numbers by keys grouped as `throughtime/<layer>/<direction>/<quantity>`. A logger of your own
is any object with that method, and `close()` if it has something to close.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from throughtime.sinks.csv import CSV as CSV
    from throughtime.sinks.tensorboard import TensorBoard as TensorBoard

_HOMES = {"CSV": "csv", "TensorBoard": "tensorboard"}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - the one list above is the truth


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'throughtime.sinks' has no attribute {name!r}")
    return getattr(import_module(f"throughtime.sinks.{_HOMES[name]}"), name)
