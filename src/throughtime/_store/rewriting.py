"""Rewrites a run as a smaller one: with every second step, or packed, with many steps per chunk.

The new folder is written beside the old one and replaces it in two moves.
"""

import os
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from throughtime._common.atomic import put, replace_folder
from throughtime._errors import StoreError
from throughtime._store.files import Files
from throughtime._store.layout import Commit, node_of
from throughtime._store.open_run import StoredValues, open_files, read_steps
from throughtime._store.schema import COMMIT, SUMS, SUMS_KEY, ArrayLayout
from throughtime._store.stored_array import StoredArray

_CHUNK = 2**25  # bytes of a packed chunk before compression


def write_thinned(
    path: Path, document: Mapping[str, Any], arrays: Mapping[str, StoredArray], sums: StoredArray
) -> None:
    """Replace a run, whose lock the caller holds, by one with its first, third, … step.

    `document` is the content of the root's `zarr.json`, `arrays` grow along `step`, and `sums` are their
    checksums.
    """

    def write(beside: Path) -> None:
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
        _every_second(sums, beside / SUMS_KEY, is_node=False)
        put(f"{beside}/{COMMIT}", Commit(document).content(count, shapes), durable=True)

    replace_folder(path, _beside(path, "thinning"), _beside(path, "full"), write)


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


def pack(path: str | os.PathLike[str], output: Path) -> None:
    """Write a packed copy of a run into the folder `output`, and replace an earlier copy.

    A damaged run, or an `output` that is something else than a packed run, raises StoreError.
    """
    files, commit = open_files(path)
    if output.exists():
        _check_packed(output)
    write = partial(_write_packed, files=files, commit=commit, path=path)
    replace_folder(output, _beside(output, "packing"), _beside(output, "replaced"), write)


def _check_packed(output: Path) -> None:
    refused = StoreError(f"{output} exists already and is not a packed run. Pass another path.")
    try:
        _, found = open_files(output)
    except StoreError:
        raise refused from None
    growing = [each for each in found.arrays.values() if each.grows]
    if not growing or not all(each.is_packed for each in growing):
        raise refused


def _write_packed(folder: Path, *, files: Files, commit: Any, path: Any) -> None:
    document = commit.document
    group = zarr.open_group(str(folder), mode="w-", zarr_format=3)
    nodes = document["consolidated_metadata"]["metadata"]
    steps = read_steps(files, commit.arrays, path)
    for key, node in nodes.items():
        if key in commit.arrays:
            _pack_array(group, StoredValues(files, commit.arrays[key], path, steps), commit.arrays[key])
        else:
            group.require_group(key).attrs.put(node["attributes"])
    attributes = {name: value for name, value in document["attributes"].items() if name != SUMS}
    packed = {key: node_of(folder, key) for key in nodes}
    text = Commit({"attributes": attributes, "consolidated_metadata": {"metadata": packed}})
    shapes = {key: each.shape for key, each in commit.arrays.items()}
    put(f"{folder}/{COMMIT}", text.content(commit.n_steps, shapes), durable=True)


def _pack_array(group: Any, values: StoredValues, layout: ArrayLayout) -> None:
    is_text, sizes = layout.dtype.kind == "O", tuple(max(1, size) for size in layout.shape)
    row = int(np.prod(sizes[1:], dtype=object)) * layout.dtype.itemsize
    steps = max(1, min(sizes[0], _CHUNK // row)) if layout.grows else sizes[0] if sizes else 1
    array = group.create_array(
        layout.key,
        shape=layout.shape,
        chunks=(steps, *sizes[1:]) if sizes else (),
        dtype="string" if is_text else layout.dtype,
        dimension_names=layout.dims,
        fill_value="" if is_text else layout.fill,
        compressors=[ZstdCodec(level=0), Crc32cCodec()],
        config={"write_empty_chunks": True},
        attributes=layout.metadata["attributes"],
    )
    if not layout.grows:
        array[...] = values.read().astype(object) if is_text else values.read()
        return
    for start in range(0, layout.shape[0], steps):
        array[start : start + steps] = values.read(start, min(start + steps, layout.shape[0]))
