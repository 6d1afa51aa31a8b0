"""The layout of a run in Zarr v3: the commit record, arrays with `step` first, labels written once."""

import json
from collections.abc import Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from throughtime._errors import StoreError
from throughtime._store.codecs import COMPRESSION, checksum
from throughtime._store.schema import COMMIT, DIGEST, HEAD, NAME, NO_DIGEST, STEP, folder_of, folder_of_layer
from throughtime._store.stored_array import steps_a_chunk

Attributes = Mapping[str, str | int | float]


def empty_document(attributes: Attributes) -> dict[str, Any]:
    consolidated = {"kind": "inline", "must_understand": False, "metadata": {}}
    return {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {**plain_attributes(attributes), "n_steps": 0},
        "consolidated_metadata": consolidated,
    }


def plain_attributes(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """Convert attributes for JSON: a NaN or an enum becomes text."""

    def plain(value: Any) -> Any:
        value = value.item() if isinstance(value, np.generic) else value
        is_json = type(value) in (str, int, bool) or (type(value) is float and np.isfinite(value))
        return value if is_json else str(value)

    return {str(name): plain(value) for name, value in attributes.items()}


def variables_of(tree: xr.DataTree) -> Iterator[tuple[str, xr.Variable]]:
    """Yield the variables of the leaves and of the root with their paths."""
    for node in tree.subtree:
        for name, array in node.to_dataset(inherit=False).data_vars.items():
            yield f"{node.path}/{name}".strip("/"), array.variable


def is_optional(key: str) -> bool:
    """Whether a variable belongs to the root: the training loop reports it, and may start late or omit it."""
    return "/" not in key


def parents(key: str) -> list[str]:
    return list(accumulate(key.split("/")[:-1], "{}/{}".format))


def new_array(group: Any, path: str, variable: xr.Variable) -> str:
    """Create an array without steps for a variable of one step; return its key in the store."""
    if variable.dtype.kind not in "biufc":
        raise StoreError(f"{path} has dtype {variable.dtype}; a run holds only numbers and booleans.")
    key, is_float, steps = folder_of(path), variable.dtype.kind in "fc", steps_a_chunk(variable.nbytes)
    group.create_array(
        key,
        shape=(0, *variable.shape),
        chunks=(steps, *(max(1, size) for size in variable.shape)),
        dtype=variable.dtype,
        dimension_names=(STEP, *map(str, variable.dims)),
        fill_value=np.nan if is_float else None,
        compressors=COMPRESSION if steps == 1 else None,  # several steps are written into a shared chunk
        attributes=named_attributes(variable.attrs, path, key),
        overwrite=True,  # an uncommitted first step may remain
    )
    return key


def new_labels(group: Any, path: str, variable: xr.Variable) -> str:
    """Write a coordinate; text has a variable length, because Zarr v3 has no fixed-width strings."""
    is_text, key = variable.dtype.kind not in "biufc", folder_of(path)
    array = group.create_array(
        key,
        shape=variable.shape,
        chunks=tuple(max(1, size) for size in variable.shape),
        dtype="string" if is_text else variable.dtype,
        dimension_names=tuple(map(str, variable.dims)),
        compressors=COMPRESSION[-1:],
        config={"write_empty_chunks": True},
        attributes=named_attributes(variable.attrs, path, key),
        overwrite=True,
    )
    array[...] = variable.values.astype(str).astype(object) if is_text else variable.values
    return key


def named_attributes(attributes: Mapping[Any, Any], path: str, key: str) -> dict[str, Any]:
    """Return attributes, with the original name if the folder's name differs."""
    name = path.rpartition("/")[2]
    return {**plain_attributes(attributes), **({} if name == key.rpartition("/")[2] else {NAME: name})}


def new_nodes(path: Path, tree: xr.DataTree, variables: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Create groups and empty arrays, and write labels; return all metadata by key."""
    group = zarr.open_group(str(path), mode="r+", use_consolidated=False)
    keys = []
    for node in tree.subtree:
        if node is not tree:
            layer = node.path[1:]
            key = folder_of_layer(layer)
            group.require_group(key).attrs.put(named_attributes(node.attrs, layer, key))
        for name, coordinate in node.to_dataset(inherit=False).coords.items():
            keys.append(new_labels(group, f"{node.path}/{name}".strip("/"), coordinate.variable))
    keys += [new_array(group, name, variable) for name, variable in variables.items()]
    nodes = {*keys, *(parent for key in keys for parent in parents(key))}
    return {key: node_of(path, key) for key in sorted(nodes)}


class Commit:
    """The root's `zarr.json` as text; its constant parts are converted to JSON only once."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        attributes = {
            key: each for key, each in document["attributes"].items() if key not in ("n_steps", DIGEST)
        }
        self._attributes = json.dumps(attributes)[1:-1]
        metadata = document["consolidated_metadata"]["metadata"]
        # zarr nests entries by runs of neighbours, so the entries of a group must be adjacent.
        ordered = sorted(metadata, key=lambda key: (key.count("/"), key))
        plain = {key: {**metadata[key]} for key in ordered}
        for each in plain.values():
            each.pop("shape", None)
        self._parts = [(key, json.dumps(key), json.dumps(each)[1:]) for key, each in plain.items()]

    def content(self, count: int, shapes: Mapping[str, tuple[int, ...]]) -> bytes:
        """Return the file for a number of steps and arrays of these shapes; a key without a shape is a group.

        It begins with a checksum of all of it, in which the checksum itself is replaced by zeros.
        """
        nodes = ", ".join(
            f'{key_text}: {{"shape": {[*shapes[key]]}, {rest}' if key in shapes else f"{key_text}: {{{rest}"
            for key, key_text, rest in self._parts
        )
        more = f", {self._attributes}" if self._attributes else ""
        rest = (
            f'"{more}, "n_steps": {count}}}, "consolidated_metadata": '
            f'{{"kind": "inline", "must_understand": false, "metadata": {{{nodes}}}}}}}'
        )
        return f"{HEAD}{checksum(f'{HEAD}{NO_DIGEST}{rest}'.encode()):08x}{rest}".encode()


def node_of(path: Path, key: str) -> dict[str, Any]:
    """Read the metadata of a node that Zarr has just written."""
    metadata: dict[str, Any] = json.loads((path / key / COMMIT).read_text("utf-8"))
    return metadata
