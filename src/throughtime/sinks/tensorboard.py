"""Scalars for TensorBoard, grouped by layer and direction."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from throughtime._errors import MissingDependencyError


class TensorBoard:
    """Write event files that `tensorboard --logdir` shows; needs tensorboard alone, not TensorFlow.

    Parameters
    ----------
    folder : path-like

    Raises
    ------
    MissingDependencyError
        tensorboard is not installed.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sink = TensorBoard(folder)
    ...     sink.write(10, {"throughtime/lstm/loss": 0.5})
    ...     sink.close()
    ...     len(list(Path(folder).glob("events.out.tfevents.*")))
    1
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        try:
            summary: Any = import_module("tensorboard.summary")
        except ImportError:
            raise MissingDependencyError(
                "sinks.TensorBoard needs tensorboard: pip install 'throughtime[tensorboard]'."
            ) from None
        self._writer = summary.Writer(os.fspath(folder))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add one scalar a value."""
        for key, value in values.items():
            self._writer.add_scalar(key, value, step=step)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()
