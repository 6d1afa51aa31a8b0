"""Checksums of arrays that grow in place: a row for each step, a column for each variable.

A chunk that several steps share is written in place, so its file cannot contain one checksum. Zarr does not
read other files in an array's folder. Variables that appear late form a separate group, with rows for earlier
steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from throughtime._store.schema import STEP
from throughtime._store.stored_array import StoredArray, steps_a_chunk


def sums_key(number: int) -> str:
    return f"{STEP}/checksums-{number}"


def sums_metadata(count: int, variables: int) -> dict[str, Any]:
    """Return the metadata of their array; the commit contains only the names of the variables."""
    return {
        "shape": [count, variables],
        "data_type": "uint32",
        "chunk_grid": {"configuration": {"chunk_shape": [steps_a_chunk(4 * variables), variables]}},
        "codecs": [{"name": "bytes"}],
        "fill_value": 0,
        "dimension_names": [STEP, "variable"],
    }


class Sums:
    """Writes the checksums of a run, which has `count` committed steps.

    `groups` has the keys of the variables, as in the commit, and a new group is added to it. It is None for a
    run of an earlier version, which has no checksums. `arrays` are those of the checksums, by key.
    """

    def __init__(self, path: Path, groups: list[list[str]] | None, count: int) -> None:
        self._path, self._groups = path, groups
        self.arrays = {
            sums_key(number): self._array(number, count, len(keys))
            for number, keys in enumerate(groups or [])
        }

    def begin(self, arrays: Mapping[str, StoredArray], count: int) -> None:
        """Create the checksums of variables that start together, with rows for earlier steps."""
        keys = sorted(key for key, array in arrays.items() if array.has_sums)
        if self._groups is None or not keys:
            return
        number = len(self._groups)
        self.arrays[sums_key(number)] = sums = self._array(number, 0, len(keys))
        empty = np.array([arrays[key].checksum(arrays[key].missing(1)) for key in keys], np.uint32)
        sums.append(np.tile(empty, (count, 1)))
        self._groups.append(keys)

    def append(self, arrays: Mapping[str, StoredArray], rows: Mapping[str, Any]) -> None:
        """Write the checksums of one step; `rows` are the variables' values, (1, …)."""
        for keys, sums in zip(self._groups or [], self.arrays.values(), strict=True):
            sums.append(np.array([[arrays[key].checksum(rows[key]) for key in keys]], np.uint32))

    def _array(self, number: int, count: int, variables: int) -> StoredArray:
        return StoredArray(self._path / sums_key(number), sums_metadata(count, variables))
