"""Writes the arrays of a run in other formats, completely or not at all."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

import throughtime as tt
from throughtime._common.atomic import replace_file
from throughtime._monitor.provenance import version_of
from throughtime._store import pack
from throughtime._tree import recorded_steps

from .runs import arrays

ENDINGS = {".zarr": "zarr", ".nc": "netcdf", ".npz": "npz", ".parquet": "parquet", ".csv": "csv"}


def export(run: Path, output: Path, to: str | None) -> None:
    """Write a run in the format that the ending or `to` names."""
    kind = _format_of(output, to)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise tt.StoreError(f"{output.parent} cannot be made: {error.strerror}. Give another path.") from None
    if kind == "zarr":
        pack(run, output)
        return
    if output.is_dir():
        raise tt.StoreError(f"{output} is a folder; {kind} is written into a file. Give another path.")
    tree = tt.open_run(run)
    try:
        replace_file(output, partial(WRITERS[kind], tree))
    except tt.ThroughTimeError:
        raise
    except Exception as error:  # each library has different errors
        raise tt.StoreError(f"{output} cannot be written as {kind}: {error}") from error


def _format_of(output: Path, to: str | None) -> str:
    named = ENDINGS.get(output.suffix.lower())
    if to is not None and to not in ENDINGS.values():
        raise tt.StoreError(f"--to {to}: there are {', '.join(ENDINGS.values())}.")
    if named is None and to is None:
        raise tt.StoreError(
            f"The ending of {output} names no format. There are {', '.join(ENDINGS)}; or give --to."
        )
    if named is not None and to is not None and named != to:
        raise tt.StoreError(
            f"{output} ends in {output.suffix}, which is {named}, not {to}. Give one of both."
        )
    return str(named or to)


def _to_npz(tree: xr.DataTree, output: Path) -> None:
    values: dict[str, Any] = {key: array.values for key, array in arrays(tree)}
    with output.open("wb") as file:  # NumPy would append an ending to a name
        np.savez_compressed(file, step=np.asarray(recorded_steps(tree)), **values)


def _to_netcdf(tree: xr.DataTree, output: Path) -> None:
    for library in ("h5netcdf", "h5py"):  # recent versions of the first do not install the second
        _needs(library, "netcdf")
    tree.to_netcdf(output, engine="h5netcdf")


def _to_parquet(tree: xr.DataTree, output: Path) -> None:
    _needs("pyarrow", "parquet")
    _table(tree).to_parquet(output)


def _to_csv(tree: xr.DataTree, output: Path) -> None:
    _table(tree).to_csv(output)


def _table(tree: xr.DataTree) -> pd.DataFrame:
    """Put arrays with at most two dims into columns, with a row for each step."""
    columns: dict[str, Any] = {}
    for key, array in arrays(tree):
        if array.ndim == 1:
            columns[key] = array.values
        elif array.ndim == 2:
            columns.update({f"{key}/{place}": array.values[:, place] for place in range(array.shape[1])})
    return pd.DataFrame(columns, index=pd.Index(recorded_steps(tree), name="step"))


WRITERS: Mapping[str, Callable[[xr.DataTree, Path], None]] = {
    "netcdf": _to_netcdf,
    "npz": _to_npz,
    "parquet": _to_parquet,
    "csv": _to_csv,
}


def _needs(library: str, extra: str) -> None:
    if version_of(library) is None:
        raise tt.MissingDependencyError(f"This needs {library}: pip install 'throughtime[{extra}]'.")
