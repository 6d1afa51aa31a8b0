"""A table of text: one line a recorded step, one column a number."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path

from throughtime._errors import MonitorError


class CSV:
    """Append each record to a file; an existing file with the same columns is continued.

    Parameters
    ----------
    path : path-like

    Raises
    ------
    MonitorError
        Later, at a record: the file has other columns. It stays as it is.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sink = CSV(f"{folder}/run.csv")
    ...     sink.write(10, {"throughtime/lstm/loss": 0.5})
    ...     Path(f"{folder}/run.csv").read_text().splitlines()
    ['step,throughtime/lstm/loss', '10,0.5']
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line, and the header to a new file."""
        columns = ["step", *values]
        is_new = not self._path.exists() or not self._path.stat().st_size
        if not is_new:
            with self._path.open(newline="", encoding="utf-8") as file:
                present = next(csv.reader(file))
            if present != columns:
                differing = ", ".join(sorted({*present} ^ {*columns})) or "their order"
                raise MonitorError(f"{self._path} has other columns: {differing}. Give another path.")
        with self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if is_new:
                writer.writerow(columns)
            writer.writerow([step, *values.values()])
