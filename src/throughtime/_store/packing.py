"""Rewrites a finished run with many steps per chunk, as few files; steps can no longer be added."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from throughtime._atomic import put, replace_folder
from throughtime._errors import StoreError
from throughtime._store.files import Files
from throughtime._store.layout import Commit, node_of
from throughtime._store.open_run import opened
from throughtime._store.reading import StoredValues, recorded
from throughtime._store.schema import COMMIT, SUMS, ArrayLayout

_CHUNK = 2**25  # bytes before compression


def pack(path: str | os.PathLike[str], output: Path) -> None:
    """Write a packed copy of a run into the folder `output`, and replace an earlier copy.

    A damaged run, or an `output` that is something else than a packed run, raises StoreError.
    """
    files, commit = opened(path)
    if output.exists():
        _check_packed(output)
    beside, replaced = output.with_name(f"{output.name}.packing"), output.with_name(f"{output.name}.replaced")
    replace_folder(output, beside, replaced, partial(_write, files=files, commit=commit, path=path))


def _check_packed(output: Path) -> None:
    refused = StoreError(f"{output} exists already and is not a packed run. Pass another path.")
    try:
        _, found = opened(output)
    except StoreError:
        raise refused from None
    growing = [each for each in found.arrays.values() if each.grows]
    if not growing or not all(each.is_packed for each in growing):
        raise refused


def _write(folder: Path, *, files: Files, commit: Any, path: Any) -> None:
    document = commit.document
    group = zarr.open_group(str(folder), mode="w-", zarr_format=3)
    nodes = document["consolidated_metadata"]["metadata"]
    steps = recorded(files, commit.arrays, path)
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
