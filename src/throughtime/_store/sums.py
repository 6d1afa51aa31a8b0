"""Checksums of what grows in place: for each step a row, for each variable a column, beside the steps.

A chunk that several steps share is written into, so no checksum of all of it could stand in the file. Zarr
does not look into an array's folder, and finds nothing that it does not know. Variables that come late are a
group of their own, with rows for the steps before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from throughtime._store.stored_array import StoredArray, steps_a_chunk
from throughtime._store.validate import STEP


def sums_key(number: int) -> str:
    """Where the checksums of one group lie."""
    return f"{STEP}/checksums-{number}"


def sums_metadata(count: int, variables: int) -> dict[str, Any]:
    """Describe them as an array; the commit has no more than the variables' names."""
    shape, steps = [count, variables], steps_a_chunk(4 * variables)
    return {
        "shape": shape,
        "data_type": "uint32",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [steps, variables]}},
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "fill_value": 0,
        "dimension_names": [STEP, "variable"],
    }


def stored_sums(path: Path, groups: list[list[str]], count: int) -> dict[str, StoredArray]:
    return {
        sums_key(number): StoredArray(path / sums_key(number), sums_metadata(count, len(keys)))
        for number, keys in enumerate(groups)
    }
