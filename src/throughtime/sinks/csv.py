"""A table of text: one line a recorded step, one column a number."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import TYPE_CHECKING

from throughtime.sinks.columns import check_columns

if TYPE_CHECKING:
    from throughtime._monitor.record import Record


class CSV:
    """Append each record to a file; an existing file with the same columns is continued.

    What only the training loop tells, such as norms before clipping, gets columns when it first comes: the
    file is then written anew and takes the old one's place when it is whole.

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
    >>> from throughtime.sinks import Record
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sink = CSV(f"{folder}/run.csv")
    ...     sink.write(Record(10, {"throughtime/lstm/loss": 0.5}))
    ...     Path(f"{folder}/run.csv").read_text().splitlines()
    ['step,throughtime/lstm/loss', '10,0.5']
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)

    def write(self, record: Record) -> None:
        """Append one line, and the header to a new file."""
        columns = self._columns(record)
        values = {"step": record.step, **record.numbers}
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerow([values.get(name, "") for name in columns])

    def _columns(self, record: Record) -> list[str]:
        """Read the file's columns, after making or widening the file where it lacks some."""
        wanted = ["step", *record.numbers]
        present: list[str] = []
        if self._path.exists() and self._path.stat().st_size:
            with self._path.open(newline="", encoding="utf-8") as file:
                present = next(csv.reader(file))
        if present:
            check_columns(present, wanted, self._path)
        further = [name for name in wanted if name not in present]
        if further:
            self._widen([*present, *further], len(further))
        return [*present, *further]

    def _widen(self, header: list[str], further: int) -> None:
        rows: list[list[str]] = []
        if self._path.exists():
            with self._path.open(newline="", encoding="utf-8") as file:
                rows = [[*row, *[""] * further] for row in csv.reader(file)][1:]
        part = self._path.with_name(f".{self._path.name}.part")
        with part.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *rows])
        part.replace(self._path)
