"""How a run is laid out in Zarr v3: the commit record, arrays with `step` first, labels written once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from zarr.codecs import BloscCodec

from throughtime._errors import StoreError

Attributes = Mapping[str, str | int | float]

VERSION = 1  # of how runs are laid out
STEP = "step"
COMMIT = "zarr.json"
_SMALL, _STEPS_A_CHUNK = 4096, 256  # what has fewer bytes a step shares its chunk with other steps
_COMPRESSION = BloscCodec(cname="zstd", clevel=1, shuffle="shuffle")


def committed(file: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(file.read_text("utf-8"))
    version = document.get("attributes", {}).get("throughtime_run")
    if version is None:
        raise StoreError(f"{file.parent} is no run of throughtime, though it is Zarr. Give another path.")
    if version > VERSION:
        raise StoreError(
            f"{file.parent} was written by a newer throughtime (layout {version}, this one knows {VERSION}): "
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
    """Yield each leaf's variables by their keys in the store."""
    for node in tree.leaves:
        for name, array in node.to_dataset().data_vars.items():
            yield f"{node.path}/{name}".strip("/"), array.variable


def parents(key: str) -> list[str]:
    parts = key.split("/")[:-1]
    return ["/".join(parts[: place + 1]) for place in range(len(parts))]


def new_array(group: Any, key: str, variable: xr.Variable) -> Any:
    """Make an array without steps for what one step has."""
    is_float = variable.dtype.kind in "fc"
    return group.create_array(
        key,
        shape=(0, *variable.shape),
        chunks=(
            _STEPS_A_CHUNK if variable.nbytes < _SMALL else 1,
            *(max(1, size) for size in variable.shape),
        ),
        dtype=variable.dtype,
        dimension_names=(STEP, *map(str, variable.dims)),
        fill_value=np.nan if is_float else None,
        compressors=[_COMPRESSION],
        attributes=plain_attributes(variable.attrs),
        overwrite=True,  # of what a first step left that was never committed
    )


def new_labels(group: Any, key: str, variable: xr.Variable) -> Any:
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
    return array


def write_step(array: Any, place: int, values: npt.NDArray[Any]) -> None:
    """Write one step's values behind the others, growing what has grown."""
    sizes = tuple(max(old, new) for old, new in zip(array.shape[1:], values.shape, strict=True))
    array.resize((place + 1, *sizes))
    array[(place, *(slice(0, size) for size in values.shape))] = values


def replace_file(file: Path, text: str, *, durable: bool) -> None:
    temporary = file.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as out:
        out.write(text)
        if durable:
            out.flush()
            os.fsync(out.fileno())
    temporary.replace(file)
