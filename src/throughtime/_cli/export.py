"""A run's arrays in files of other formats, and which libraries are there for them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

import throughtime as tt
from throughtime._recorded import recorded_steps

from .runs import arrays


def to_npz(tree: xr.DataTree, output: Path) -> None:
    values: dict[str, Any] = {key: array.values for key, array in arrays(tree)}
    np.savez_compressed(output, step=np.asarray(recorded_steps(tree)), **values)


def to_netcdf(tree: xr.DataTree, output: Path) -> None:
    _needs("h5netcdf", "netcdf")
    tree.to_netcdf(output, engine="h5netcdf")


def to_parquet(tree: xr.DataTree, output: Path) -> None:
    _needs("pyarrow", "parquet")
    columns: dict[str, Any] = {}
    for key, array in arrays(tree):
        if array.ndim == 1:
            columns[key] = array.values
        elif array.ndim == 2:
            columns.update({f"{key}/{place}": array.values[:, place] for place in range(array.shape[1])})
    pd.DataFrame(columns, index=pd.Index(recorded_steps(tree), name="step")).to_parquet(output)


def _needs(library: str, extra: str) -> None:
    if version_of(library) is None:
        raise tt.MissingDependencyError(f"This needs {library}: pip install 'throughtime[{extra}]'.")


def version_of(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
