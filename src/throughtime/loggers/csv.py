"""A CSV table: one line per recorded step, one column per number."""

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path

from throughtime._common.atomic import replace_file
from throughtime._errors import MonitorError
from throughtime.loggers.record import Record


class CSV:
    """Append each record to a file, also to an existing file with the same columns.

    Values that the training loop passes, such as norms before clipping, get columns when they first appear.
    The logger then writes a new file and replaces the old one once the new file is complete.

    Parameters
    ----------
    path : path-like

    Raises
    ------
    MonitorError
        While recording: the file has other columns. The file is not changed.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from throughtime.loggers import Record
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     logger = CSV(f"{folder}/run.csv")
    ...     logger.write(Record(10, {"detail/lstm/loss": 0.5}))
    ...     Path(f"{folder}/run.csv").read_text().splitlines()
    ['step,detail/lstm/loss', '10,0.5']
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)

    def write(self, record: Record) -> None:
        """Append one line; a new file starts with the header."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        columns = self._columns(record)
        values = {"step": record.step, **record.numbers}
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerow([values.get(name, "") for name in columns])

    def _columns(self, record: Record) -> list[str]:
        """Return the columns of the file, after creating the file or adding the columns that it lacks."""
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
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows([header, *rows])
        replace_file(self._path, lambda beside: beside.write_text(table.getvalue(), "utf-8", newline=""))


def check_columns(present: Iterable[str], wanted: Iterable[str], path: Path) -> None:
    """Refuse a table with the numbers of another model, by its columns.

    Columns of the training loop, which name no layer, are optional and may be added later.
    """
    if differing := sorted(name for name in {*present} ^ {*wanted} if not _is_of_loop(name)):
        raise MonitorError(
            f"The columns of {path} differ from those of this record: {', '.join(differing)}. "
            "Pass another path."
        )


def _is_of_loop(column: str) -> bool:
    return column.startswith(("throughtime/", "detail/")) and column.count("/") == 1
