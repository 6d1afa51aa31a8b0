"""A table for pandas, Polars or DuckDB: a folder of Parquet files that can be read at any time."""

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from throughtime._common.atomic import replace_file
from throughtime._errors import MonitorError
from throughtime.loggers.csv import check_columns
from throughtime.loggers.library import library
from throughtime.loggers.record import Record

ROWS_A_FILE = 256


class Parquet:
    """Add each record as a row to a folder of Parquet files: `pandas.read_parquet(folder)` reads them all.

    Each record rewrites the newest file: the logger writes a new file and replaces the old one once the new
    file is complete. A reader therefore finds every row that was written and no partial row, even if training
    is killed. An existing folder is continued.

    Parameters
    ----------
    folder : path-like

    Raises
    ------
    MissingDependencyError
        pyarrow is not installed.
    MonitorError
        The path is a file, or a folder with other files. While recording: the folder has other columns.

    Examples
    --------
    >>> import tempfile
    >>> import pandas
    >>> from throughtime.loggers import Record
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     logger = Parquet(f"{folder}/run.parquet")
    ...     logger.write(Record(0, {"detail/lstm/loss": 0.5}))
    ...     logger.write(Record(50, {"detail/lstm/loss": 0.25}))
    ...     pandas.read_parquet(f"{folder}/run.parquet")["step"].tolist()
    [0, 50]
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._arrow: Any = library("loggers.Parquet", "pyarrow", "'throughtime[parquet]'")
        self._files: Any = import_module("pyarrow.parquet")
        self._folder = Path(folder)
        if self._folder.exists() and not self._folder.is_dir():
            raise MonitorError(f"{folder} is a file; Parquet writes its rows to a folder. Pass another path.")
        foreign = [path for path in self._folder.glob("[!.]*") if path not in self._parts()]
        if foreign:
            raise MonitorError(f"{folder} holds other files, such as {foreign[0].name}. Pass another path.")
        self._number = len(self._parts())
        self._table: Any = None

    def write(self, record: Record) -> None:
        """Add one row."""
        numbers = {key: self._arrow.array([value], "float64") for key, value in record.numbers.items()}
        row = self._arrow.table({"step": self._arrow.array([record.step], "int64"), **numbers})
        self._widen(row.schema)
        if self._table is not None and self._table.num_rows >= ROWS_A_FILE:
            self._table, self._number = None, self._number + 1
        table = row if self._table is None else self._join(self._table, row)
        self._save(table, self._folder / f"part-{self._number:06}.parquet")
        self._table = table

    def _parts(self) -> list[Path]:
        return sorted(self._folder.glob("part-*.parquet"))

    def _widen(self, schema: Any) -> None:
        """Add new columns to earlier files: readers take the columns of the first file."""
        for path in self._parts():
            present = self._files.read_schema(path).names
            check_columns(present, schema.names, self._folder)
            if set(schema.names) <= set(present):
                return  # all files have the same columns
            self._save(self._join(self._files.read_table(path), schema.empty_table()), path)

    def _join(self, *tables: Any) -> Any:
        return self._arrow.concat_tables(tables, promote_options="default")

    def _save(self, table: Any, path: Path) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        replace_file(path, lambda beside: self._files.write_table(table, beside))
