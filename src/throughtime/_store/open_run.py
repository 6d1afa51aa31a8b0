"""Reads a run: it is plain Zarr, opened lazily by xarray."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

import xarray as xr
import zarr

from throughtime._arguments import takes
from throughtime._errors import StoreError
from throughtime._store.layout import COMMIT, known


@takes(StoreError)
def open_run(path: str | os.PathLike[str]) -> xr.DataTree:
    """Open a run as a tree with a `step` dim, lazily: arrays are read when they are used.

    Works while the run is written, and shows what was committed when it was opened. It is plain Zarr:
    `xarray.open_datatree(path, engine="zarr", chunks={})` does the same.

    Parameters
    ----------
    path : path-like
        A run's folder, or a zip of what is in it: `cd run.zarr && zip -r ../run.zip .`

    Returns
    -------
    DataTree
        As `capture` returns it, each variable with `step` first. The root has what the training loop told
        of its own gradients, if it did: `gradient_norm`, `clip_ratio` and more, see `Monitor.step`.

    Raises
    ------
    StoreError
        There is no run, or one of a newer version.

    Examples
    --------
    >>> import tempfile
    >>> from throughtime import open_run, testing
    >>> from throughtime._store import Run
    >>> with tempfile.TemporaryDirectory() as folder, Run(f"{folder}/run.zarr") as run:
    ...     for step in (0, 50):
    ...         run.append(testing.decaying(rate=0.5), step)
    ...     dict(open_run(f"{folder}/run.zarr")["rnn"]["hidden_gradient"].sizes)
    {'step': 2, 'sample': 1, 'time': 50, 'unit': 4}
    """
    if is_zipfile(path):
        return _in_zip(path)
    file = Path(path) / COMMIT
    if not file.exists():
        raise StoreError(f"There is no run at {path}: no {COMMIT} in it. A monitor makes one.")
    known(file.read_text("utf-8"), path)
    return xr.open_datatree(path, engine="zarr", consolidated=True, chunks={})


def _in_zip(path: str | os.PathLike[str]) -> xr.DataTree:
    with ZipFile(path) as archive:
        if COMMIT not in archive.namelist():
            raise StoreError(
                f"{path} has no {COMMIT} at its top: zip what is in the run's folder, not the folder itself: "
                "cd run.zarr && zip -r ../run.zip ."
            )
        known(archive.read(COMMIT).decode("utf-8"), path)
    store: Any = zarr.storage.ZipStore(Path(path), mode="r")
    return xr.open_datatree(store, engine="zarr", consolidated=True, chunks={})
