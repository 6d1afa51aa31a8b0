"""Checks a run's commit record once, before anything in it is used.

A run may come from anyone. Names become paths, shapes become memory, codecs become code. All code that reads
or continues a run takes the record from `read_commit`.
"""

import json
from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple

from throughtime._errors import StoreError
from throughtime._store import schema
from throughtime._store.codecs import RATIOS, DamageError, checksum, is_text
from throughtime._store.files import Files

MOST_COMMIT = 2**25  # bytes
_MOST_CHUNK = 2**31  # bytes: Blosc's limit
_MOST_UNSEEN = 2**26  # bytes that an array may claim without corresponding files
_MOST_ABSENT = 64  # chunks without a file; a writer omits none among the last steps


class Committed(NamedTuple):
    """The checked commit record; `digest` is whether it is as it was written."""

    document: dict[str, Any]
    arrays: dict[str, schema.ArrayLayout]
    n_steps: int
    digest: bool


def read_commit(files: Files, path: Any) -> Committed:
    """Read the commit record, if all of it can be used safely.

    Otherwise StoreError names the fault, its place, and whether any step can be read.
    """
    try:
        text = files.read(schema.COMMIT, MOST_COMMIT)
    except DamageError as error:
        raise StoreError(f"{path} cannot be opened: {error}. No step is readable without it.") from None
    if text is None:
        raise StoreError(f"There is no run at {path}: it has no {schema.COMMIT}. A monitor creates a run.")
    try:
        document = _parse(text)
        _check_version(document, path)
        found = _check_document(document, _has_digest(text))
        for array in found.arrays.values():
            _check_claims(array, files)
    except DamageError as error:
        raise StoreError(f"{path} is damaged: {error}. No step can be read until this is repaired.") from None
    return found


def _parse(text: bytes) -> dict[str, Any]:
    try:
        document = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamageError(f"{schema.COMMIT} is not JSON: {str(error)[:200]}") from None
    if not isinstance(document, dict):
        raise DamageError(f"{schema.COMMIT} holds no metadata")
    return document


def _check_version(document: Mapping[str, Any], path: Any) -> None:
    attributes = document.get("attributes")
    version = attributes.get(schema.VERSION_KEY) if isinstance(attributes, dict) else None
    if version is None:
        raise StoreError(f"{path} is Zarr, but not a throughtime run. Pass another path.")
    if not schema.is_size(version):
        raise DamageError(f"its layout is {str(version)[:50]!r}, not a number")
    if version > schema.VERSION:
        raise StoreError(
            f"{path} was written by a newer throughtime (layout {version}; this version reads "
            f"{schema.VERSION}): pip install --upgrade throughtime."
        )


def _has_digest(text: bytes) -> bool:
    """Whether the record begins with its checksum."""
    at = len(schema.HEAD)
    rest = text[:at] + schema.NO_DIGEST.encode() + text[at + len(schema.NO_DIGEST) :]
    return text[: at + len(schema.NO_DIGEST)] == f"{schema.HEAD}{checksum(rest):08x}".encode()


def _check_document(document: dict[str, Any], digest: bool) -> Committed:
    _check_fields(document, schema.GROUP, "the root")
    count = document["attributes"].get("n_steps")
    if not schema.is_size(count):
        raise DamageError(f"n_steps is {str(count)[:50]!r}, not a number of steps")
    consolidated = document.get("consolidated_metadata")
    nodes = consolidated.get("metadata") if isinstance(consolidated, dict) else None
    if not isinstance(nodes, dict):
        raise DamageError(f"{schema.COMMIT} lists no layers and variables")
    arrays = {}
    for key, metadata in nodes.items():
        _check_key(key, nodes)
        is_array = isinstance(metadata, dict) and metadata.get("node_type") == "array"
        _check_fields(metadata, schema.ARRAY if is_array else schema.GROUP, key)
        if is_array:
            arrays[key] = schema.ArrayLayout(key, metadata)
            _check_array(arrays[key], count)
    _check_sizes(arrays)
    _check_sums(document["attributes"].get(schema.SUMS, []), arrays)
    if arrays and schema.STEP not in arrays:
        raise DamageError(f"there is no {schema.STEP}")
    return Committed(document, arrays, count, digest)


def _check_fields(metadata: Any, rules: tuple[schema.Field, ...], key: str) -> None:
    for rule in rules:
        value = metadata
        for part in rule.place.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if not rule.holds(value):
            raise DamageError(f"{rule.place} of {key} is {str(value)[:100]!r}, not {rule.expected}")


def _check_key(key: str, nodes: Mapping[str, Any]) -> None:
    parts = key.split("/")
    if not all(map(schema.is_name, parts)) or len(parts) > schema.DEEPEST:
        raise DamageError(f"{key[:200]!r} is not a valid name of a layer or variable")
    for end in range(1, len(parts)):
        parent = nodes.get("/".join(parts[:end]))
        if not isinstance(parent, dict) or parent.get("node_type") != "group":
            raise DamageError(f"{key[:200]!r} belongs to no group")
    attributes = nodes[key].get("attributes") if isinstance(nodes[key], dict) else None
    own = attributes.get(schema.NAME, "name") if isinstance(attributes, dict) else "name"
    if not isinstance(own, str) or not own or "/" in own:
        raise DamageError(f"{key[:200]!r} has an invalid name: {str(own)[:50]!r}")


def _check_array(array: schema.ArrayLayout, count: int) -> None:
    if not len(array.shape) == len(array.chunk) == len(array.dims):
        raise DamageError(
            f"{array.key} has {len(array.shape)} sizes, {len(array.chunk)} of chunks, {len(array.dims)} dims"
        )
    if schema.STEP in array.dims[1:] or (
        array.key == schema.STEP and (array.dims != (schema.STEP,) or array.dtype.kind != "i")
    ):
        raise DamageError(f"{array.key} has the dims {', '.join(array.dims)}")
    if array.grows and array.shape[0] != count:
        raise DamageError(f"{array.key} has {array.shape[0]} of {count} steps")
    if is_text(array.codecs) != (array.dtype.kind == "O") or (array.grows and array.dtype.kind == "O"):
        raise DamageError(f"{array.key} holds {array.metadata['data_type']} in an encoding that does not fit")
    if prod(array.chunk) * array.dtype.itemsize > _MOST_CHUNK:
        raise DamageError(
            f"a chunk of {array.key} would have {prod(array.chunk) * array.dtype.itemsize:,} bytes"
        )
    try:
        _ = array.fill
    except (ValueError, TypeError, OverflowError):
        raise DamageError(
            f"fill_value of {array.key} is {str(array.metadata['fill_value'])[:50]!r}"
        ) from None


def _check_sizes(arrays: Mapping[str, schema.ArrayLayout]) -> None:
    """Refuse two sizes of one dim in one layer."""
    sizes: dict[tuple[str, str], tuple[int, str]] = {}
    for key, array in arrays.items():
        for dim, size in zip(array.dims, array.shape, strict=True):
            known, other = sizes.setdefault((key.rpartition("/")[0], dim), (size, key))
            if known != size:
                raise DamageError(f"{dim} has the size {size} in {key} and {known} in {other}")


def _check_sums(sums: Any, arrays: Mapping[str, schema.ArrayLayout]) -> None:
    keys = sums if isinstance(sums, list) else [None]
    summed = {key for key in keys if isinstance(key, str) and key in arrays and arrays[key].has_sums}
    if len(summed) < len(keys):
        raise DamageError(f"{schema.SUMS} is not a list of recorded variables, or lists one of them twice")


def _check_claims(array: schema.ArrayLayout, files: Files) -> None:
    """Refuse an array that claims far more than its files can hold."""
    # In an array that grows, the last chunk of steps shows the size of all chunks.
    is_whole = not array.grows or array.is_packed or array.key == schema.STEP
    if not all(array.shape):
        return
    sizes, grid = (array.shape, array.grid) if is_whole else (array.shape[1:], array.grid[1:])
    claimed, chunks = prod(sizes) * array.dtype.itemsize, prod(grid)
    if claimed <= _MOST_UNSEEN and chunks <= _MOST_ABSENT:
        return
    on_disk = list(files.sizes(f"{array.key}/c" if is_whole else f"{array.key}/c/{array.grid[0] - 1}"))
    most = _MOST_UNSEEN + sum(on_disk) * max(RATIOS[codec] for codec in array.codecs)
    if claimed > most or chunks > _MOST_ABSENT + len(on_disk):
        raise DamageError(
            f"{array.key} claims {claimed:,} bytes in {chunks:,} chunks; its files have {sum(on_disk):,}"
        )
