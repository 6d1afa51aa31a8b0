"""How a run is laid out in Zarr v3: the commit record, arrays with `step` first, labels written once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from throughtime._errors import StoreError
from throughtime._store.stored_array import COMPRESSION, steps_a_chunk

Attributes = Mapping[str, str | int | float]

VERSION = 1  # of how runs are laid out
STEP = "step"
COMMIT = "zarr.json"


def committed(file: Path) -> dict[str, Any]:
    return known(file.read_text("utf-8"), file.parent)


def known(text: str, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what is committed, if it is a run's and of a layout that this version knows."""
    document: dict[str, Any] = json.loads(text)
    version = document.get("attributes", {}).get("throughtime_run")
    if version is None:
        raise StoreError(f"{path} is no run of throughtime, though it is Zarr. Give another path.")
    if version > VERSION:
        raise StoreError(
            f"{path} was written by a newer throughtime (layout {version}, this one knows {VERSION}): "
            "pip install --upgrade throughtime."
        )
    return document


def empty_document(attributes: Attributes) -> dict[str, Any]:
    consolidated = {"kind": "inline", "must_understand": False, "metadata": {}}
    return {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {**plain_attributes(attributes), "n_steps": 0},
        "consolidated_metadata": consolidated,
    }


def plain_attributes(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """Keep attributes that JSON has: a NaN or an enum is written as text."""

    def plain(value: Any) -> Any:
        value = value.item() if isinstance(value, np.generic) else value
        is_json = type(value) in (str, int, bool) or (type(value) is float and np.isfinite(value))
        return value if is_json else str(value)

    return {str(name): plain(value) for name, value in attributes.items()}


def variables_of(tree: xr.DataTree) -> Iterator[tuple[str, xr.Variable]]:
    """Yield the variables of leaves and of the root by their keys in the store."""
    for node in tree.subtree:
        for name, array in node.to_dataset(inherit=False).data_vars.items():
            yield f"{node.path}/{name}".strip("/"), array.variable


def is_optional(key: str) -> bool:
    """Whether a variable is the root's: a training loop tells it, and may begin late or leave it out."""
    return "/" not in key


def parents(key: str) -> list[str]:
    parts = key.split("/")[:-1]
    return ["/".join(parts[: place + 1]) for place in range(len(parts))]


def new_array(group: Any, key: str, variable: xr.Variable) -> None:
    """Make an array without steps for what one step has."""
    if variable.dtype.kind not in "biufc":
        raise StoreError(f"{key} is of {variable.dtype}; a run holds numbers and booleans.")
    is_float = variable.dtype.kind in "fc"
    steps = steps_a_chunk(variable.nbytes)
    group.create_array(
        key,
        shape=(0, *variable.shape),
        chunks=(steps, *(max(1, size) for size in variable.shape)),
        dtype=variable.dtype,
        dimension_names=(STEP, *map(str, variable.dims)),
        fill_value=np.nan if is_float else None,
        compressors=[COMPRESSION] if steps == 1 else None,  # steps are written into a chunk that they share
        attributes=plain_attributes(variable.attrs),
        overwrite=True,  # of what a first step left that was never committed
    )


def new_labels(group: Any, key: str, variable: xr.Variable) -> None:
    """Write a coordinate; labels of text are no fixed-width strings, which Zarr v3 has none of."""
    is_text = variable.dtype.kind in "OUT"
    array = group.create_array(
        key,
        shape=variable.shape,
        chunks=tuple(max(1, size) for size in variable.shape),
        dtype="string" if is_text else variable.dtype,
        dimension_names=tuple(map(str, variable.dims)),
        attributes=plain_attributes(variable.attrs),
        overwrite=True,
    )
    array[...] = variable.values.astype(object) if is_text else variable.values


class Commit:
    """The root's `zarr.json` as text: what never changes is put into JSON once, not at every step."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._attributes = {key: each for key, each in document["attributes"].items() if key != "n_steps"}
        metadata = document["consolidated_metadata"]["metadata"]
        # zarr nests what it reads by runs of neighbours: what lies in one group has to stand together.
        ordered = sorted(metadata, key=lambda key: (key.count("/"), key))
        self._parts = [(key, json.dumps(key), self._without_shape(metadata[key])) for key in ordered]

    @staticmethod
    def _without_shape(metadata: Mapping[str, Any]) -> str:
        text = json.dumps({key: each for key, each in metadata.items() if key != "shape"})
        return text[1:]

    def text(self, count: int, shapes: Mapping[str, tuple[int, ...]]) -> str:
        """Say that so many steps are there, in arrays of these shapes; what has no shape is a group."""
        attributes = json.dumps({**self._attributes, "n_steps": count})
        nodes = ", ".join(
            f'{key_text}: {{"shape": {json.dumps(shapes[key])}, {rest}'
            if key in shapes
            else f"{key_text}: {{{rest}"
            for key, key_text, rest in self._parts
        )
        return (
            f'{{"zarr_format": 3, "node_type": "group", "attributes": {attributes}, "consolidated_metadata": '
            f'{{"kind": "inline", "must_understand": false, "metadata": {{{nodes}}}}}}}'
        )


def replace_file(file: Path, text: str, *, durable: bool) -> None:
    temporary = file.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as out:
        out.write(text)
        if durable:
            out.flush()
            os.fsync(out.fileno())
    temporary.replace(file)
