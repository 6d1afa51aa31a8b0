"""Checksums of the steps of a run: `Sums` writes them, `damage` reads a whole run and compares it with them.

A chunk that several steps share is written in place, so its file cannot contain one checksum. The checksums
are one array with a row for each step and a column for each variable, in the folder of `step`, where Zarr
does not read it. A variable that appears late has 0 in earlier rows.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from throughtime._errors import StoreError
from throughtime._store.codecs import DamageError, empty_value, row_checksums
from throughtime._store.files import Files
from throughtime._store.open_run import StoredValues, open_files, read_steps
from throughtime._store.schema import COMMIT, STEP, SUMS, SUMS_KEY, ArrayLayout
from throughtime._store.stored_array import StoredArray, steps_a_chunk
from throughtime._store.validate import Committed

_MOST_NODE = 2**22  # bytes
_COLUMNS = 64  # of a chunk


def sums_metadata(count: int, variables: int) -> dict[str, Any]:
    """Return the metadata of their array; the commit contains only the names of the variables."""
    return {
        "shape": [count, variables],
        "data_type": "uint32",
        "chunk_grid": {"configuration": {"chunk_shape": [steps_a_chunk(4 * _COLUMNS), _COLUMNS]}},
        "codecs": [{"name": "bytes"}],
        "fill_value": 0,
        "dimension_names": [STEP, "variable"],
    }


class Sums:
    """Writes the checksums of a run; `keys` of the variables, as in the commit, name the columns."""

    def __init__(self, path: Path, keys: list[str], count: int) -> None:
        self.keys, self.array = keys, StoredArray(path / SUMS_KEY, sums_metadata(count, len(keys)))

    def begin(self, arrays: Mapping[str, StoredArray]) -> None:
        """Add the columns of variables that start now."""
        self.keys += sorted(key for key, array in arrays.items() if array.has_sums)

    def append(self, arrays: Mapping[str, StoredArray], rows: Mapping[str, Any]) -> None:
        """Write the checksums of one step; `rows` are the variables' values, (1, …)."""
        self.array.append(np.array([[arrays[key].checksum(rows[key]) for key in self.keys]], np.uint32))


def damage(path: str | os.PathLike[str]) -> Iterator[str]:
    """Yield a message for each damaged variable and step; nothing for an intact run."""
    files, commit = open_files(path)
    if not commit.digest:
        yield f"{COMMIT} was changed after it was written: it does not match its checksum"
    yield from _nodes(files, commit)
    try:
        steps = read_steps(files, commit.arrays, path)
    except StoreError as error:
        yield str(error)
        return
    sums: dict[str, Any] = {}
    keys = commit.document["attributes"].get(SUMS, [])
    written = ArrayLayout(SUMS_KEY, sums_metadata(commit.n_steps, len(keys)))
    try:
        sums = dict(zip(keys, StoredValues(files, written, path, steps).read().T, strict=True))
    except StoreError as error:
        yield str(error)
    for key, layout in commit.arrays.items():
        yield from _chunks(StoredValues(files, layout, path, steps), layout, sums.get(key), steps)


def _nodes(files: Files, commit: Committed) -> Iterator[str]:
    """Compare the metadata in each node, which other Zarr readers use, with the commit."""
    for key, wanted in commit.document["consolidated_metadata"]["metadata"].items():
        name = f"{key}/{COMMIT}"
        try:
            text = files.read(name, _MOST_NODE)
            found = None if text is None else json.loads(text)
        except (DamageError, ValueError, RecursionError) as error:
            yield f"{name} cannot be read: {error}"
            continue
        # A run that was not closed has its shapes only in the commit.
        if not isinstance(found, dict) or _without_shape(found) != _without_shape(wanted):
            yield f"{name} differs from the entry for {key} in the run's {COMMIT}"


def _without_shape(metadata: dict[str, Any]) -> dict[str, Any]:
    return {key: each for key, each in metadata.items() if key not in ("shape", "consolidated_metadata")}


def _chunks(values: StoredValues, layout: ArrayLayout, sums: Any, steps: Any) -> Iterator[str]:
    if not layout.shape or not layout.grows:
        try:
            values.read()
        except StoreError as error:
            yield str(error)
        return
    for start in range(0, layout.shape[0], layout.chunk[0]):
        stop = min(start + layout.chunk[0], layout.shape[0])
        try:
            rows = values.read(start, stop)
        except StoreError as error:
            yield str(error)
            continue
        if sums is not None:
            with_empty = np.concatenate([rows, np.full_like(rows[:1], empty_value(rows.dtype))])
            found = np.fromiter(row_checksums(with_empty, layout.chunk[1:]), np.uint32)
            # A variable that appears late has no checksums in earlier rows, and no values.
            is_absent = (sums[start:stop] == 0) & (found[:-1] == found[-1])
            wrong = np.flatnonzero((found[:-1] != sums[start:stop]) & ~is_absent) + start
            # If `step` itself is damaged, its values cannot name a record.
            named = [f"record {at + 1}" if layout.key == STEP else f"step {steps[at]}" for at in wrong]
            yield from (f"{layout.key} of {each} does not match its checksum" for each in named)
