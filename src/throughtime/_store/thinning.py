"""Drops every second step of a run: the smaller run is written beside it and replaces it in two moves."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from throughtime._atomic import put, replace_folder
from throughtime._store.layout import Commit
from throughtime._store.schema import COMMIT
from throughtime._store.stored_array import StoredArray


def write_thinned(
    path: Path,
    document: Mapping[str, Any],
    arrays: Mapping[str, StoredArray],
    sums: Mapping[str, StoredArray],
) -> None:
    """Replace a run, whose lock the caller holds, by one with its first, third, … step.

    `document` is the content of the root's `zarr.json`, `arrays` grow along `step`, and `sums` are their
    checksums.
    """
    write = partial(_write_beside, path=path, document=document, arrays=arrays, sums=sums)
    replace_folder(path, _beside(path, "thinning"), _beside(path, "full"), write)


def _write_beside(
    beside: Path,
    *,
    path: Path,
    document: Mapping[str, Any],
    arrays: Mapping[str, StoredArray],
    sums: Mapping[str, StoredArray],
) -> None:
    beside.mkdir()
    shapes, count = {}, 0
    for key, metadata in document["consolidated_metadata"]["metadata"].items():
        if key in arrays:
            smaller = _every_second(arrays[key], beside / key)
            shapes[key], count = smaller.shape, smaller.shape[0]
        elif metadata["node_type"] == "array":
            shutil.copytree(path / key, beside / key)
            shapes[key] = tuple(metadata["shape"])
        else:
            (beside / key).mkdir(parents=True, exist_ok=True)
            shutil.copy(path / key / COMMIT, beside / key / COMMIT)
    for key, each in sums.items():
        _every_second(each, beside / key, is_node=False)
    put(f"{beside}/{COMMIT}", Commit(document).content(count, shapes), durable=True)


def _every_second(array: StoredArray, folder: Path, *, is_node: bool = True) -> StoredArray:
    smaller = StoredArray(folder, {**array.metadata, "shape": [0, *array.shape[1:]]})
    at_once = 2 * array.steps_a_chunk
    for start in range(0, array.shape[0], at_once):
        smaller.append(array.read(start, min(start + at_once, array.shape[0]))[::2])
    if is_node:
        smaller.write_shape()
    return smaller


def finish_thinning(path: Path) -> None:
    """Undo a thinning that was interrupted between its two moves, or clean up after a complete one."""
    replaced = _beside(path, "full")
    if replaced.exists() and path.exists():
        shutil.rmtree(replaced)
    elif replaced.exists():
        replaced.rename(path)


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f"{path.name}.{what}")
