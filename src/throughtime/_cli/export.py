"""A run's arrays in files of other formats."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

import throughtime as tt
from throughtime._recorded import recorded_steps
from throughtime._versions import version_of

from .runs import arrays

CHUNK = 2**25  # bytes before compression


def to_zarr(tree: xr.DataTree, output: Path) -> None:
    """Write a run anew, many steps a chunk: few files, for all readers of runs; nothing can be added."""
    if output.exists():
        raise tt.StoreError(f"{output} exists already. Give another path.")
    packed = tree.map_over_datasets(_many_steps_a_chunk)
    packed.attrs.update(tree.attrs)
    with warnings.catch_warnings():
        # Zarr warns at each write that consolidated metadata, which all readers take, are no standard yet.
        warnings.filterwarnings("ignore", "Consolidated metadata", UserWarning)
        packed.to_zarr(output, mode="w-", zarr_format=3, consolidated=True)


def _many_steps_a_chunk(leaf: xr.Dataset) -> xr.Dataset:
    variables = {}
    for name, array in leaf.data_vars.items():
        count = max(1, len(array))
        steps = max(1, min(count, CHUNK * count // max(1, array.nbytes)))
        variables[name] = array.drop_encoding().chunk({"step": steps, **dict.fromkeys(array.dims[1:], -1)})
    return leaf.drop_encoding().assign(variables)


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
