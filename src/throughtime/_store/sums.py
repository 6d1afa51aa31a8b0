"""Checksums of what grows in place: for each step a row, for each variable a column, beside the steps.

A chunk that several steps share is written into, so no checksum of all of it could stand in the file. Zarr
does not look into an array's folder, and finds nothing that it does not know. Variables that come late are a
group of their own, with rows for the steps before.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from throughtime._store.schema import STEP
from throughtime._store.stored_array import StoredArray, steps_a_chunk


def sums_key(number: int) -> str:
    """Where the checksums of one group lie."""
    return f"{STEP}/checksums-{number}"


def sums_metadata(count: int, variables: int) -> dict[str, Any]:
    """Describe them as an array; the commit has no more than the variables' names."""
    return {
        "shape": [count, variables],
        "data_type": "uint32",
        "chunk_grid": {"configuration": {"chunk_shape": [steps_a_chunk(4 * variables), variables]}},
        "codecs": [{"name": "bytes"}],
        "fill_value": 0,
        "dimension_names": [STEP, "variable"],
    }


class Sums:
    """Writes the checksums of a run.

    Parameters
    ----------
    path : Path
        Of the run.
    groups : list of lists of str, or None
        Keys of the variables, as the commit has them; a group that begins is added. None for a run of an
        earlier version, which has no checksums.
    count : int
        Steps that are committed.

    Attributes
    ----------
    arrays : dict of str to StoredArray
    """

    def __init__(self, path: Path, groups: list[list[str]] | None, count: int) -> None:
        self._path, self._groups = path, groups
        self.arrays = {
            sums_key(number): self._array(number, count, len(keys))
            for number, keys in enumerate(groups or [])
        }

    def begin(self, arrays: Mapping[str, StoredArray], count: int) -> None:
        """Lay out those of variables that begin together, with rows for the steps before."""
        keys = sorted(key for key, array in arrays.items() if array.has_sums)
        if self._groups is None or not keys:
            return
        number = len(self._groups)
        self.arrays[sums_key(number)] = sums = self._array(number, 0, len(keys))
        empty = np.array([arrays[key].checksum(arrays[key].missing(1)) for key in keys], np.uint32)
        sums.append(np.tile(empty, (count, 1)))
        self._groups.append(keys)

    def append(self, arrays: Mapping[str, StoredArray], rows: Mapping[str, Any]) -> None:
        """Write those of one step; `rows` are the variables' values, (1, …)."""
        for keys, sums in zip(self._groups or [], self.arrays.values(), strict=True):
            sums.append(np.array([[arrays[key].checksum(rows[key]) for key in keys]], np.uint32))

    def _array(self, number: int, count: int, variables: int) -> StoredArray:
        return StoredArray(self._path / sums_key(number), sums_metadata(count, variables))
