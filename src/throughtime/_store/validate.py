"""What a run may consist of: its commit record is looked at once, before anything in it is used.

A run may come from anyone. Names become paths, shapes become memory, codecs become code: each has a rule
here, and all that reads or continues a run takes the record from `validated`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from math import prod
from typing import Any, NamedTuple

import numpy as np

from throughtime._errors import StoreError
from throughtime._store.codecs import COMPRESSED, COMPRESSED_BEFORE, PLAIN, RATIOS, TEXT, checksum, is_text
from throughtime._store.files import Damaged, Files

VERSION = 1  # of how runs are laid out
STEP, COMMIT = "step", "zarr.json"
NAME = "throughtime_name"  # attribute of what lies in a folder of another name
SUMS, DIGEST = "checksums", "checksum"  # attributes of the root
HEAD = f'{{"zarr_format": 3, "node_type": "group", "attributes": {{"{DIGEST}": "'  # what a commit begins with
NO_DIGEST = "0" * 8

_MOST_COMMIT = 2**25  # bytes
_MOST_CHUNK = 2**31  # bytes: more Blosc does not take
_MOST_UNSEEN = 2**26  # bytes that an array may claim without a file that shows them
_MOST_ABSENT = 2**14  # chunks of which no file is there
_DTYPES = {
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128", "string"),
}
_ENCODINGS = {
    *(PLAIN, COMPRESSED, COMPRESSED_BEFORE, (*PLAIN, "zstd"), (*PLAIN, "zstd", "crc32c"), (*PLAIN, "crc32c")),
    *(TEXT, (*TEXT, "zstd"), (*TEXT, "zstd", "crc32c"), (*TEXT, "crc32c")),
}
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\\/]")
_LONGEST, _DEEPEST = 255, 64  # characters of a name, names of a path


def is_name(value: Any) -> bool:
    """Whether a text may be a part of a path, or a dim."""
    fits = isinstance(value, str) and 0 < len(value) <= _LONGEST and not _UNFIT.search(value)
    return fits and value not in (".", "..", COMMIT)


def _is_list(value: Any, each: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and len(value) <= 32 and all(map(each, value))


def _is_size(value: Any, least: int = 0) -> bool:
    return type(value) is int and least <= value < 2**63


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) or value in ("NaN", "Infinity", "-Infinity")


def _is_attribute(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _are_attributes(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_attribute(each) for key, each in value.items() if key != SUMS)


class Rule(NamedTuple):
    """Where something stands in a node's metadata, what is right there, and how it is seen."""

    place: str
    expected: str
    holds: Callable[[Any], bool]


_FORMAT = Rule("zarr_format", "3", lambda value: type(value) is int and value == 3)
_GROUP = (
    _FORMAT,
    Rule("node_type", "'group'", lambda value: value == "group"),
    Rule("attributes", "texts and numbers by name", _are_attributes),
)
_ARRAY = (
    _FORMAT,
    Rule("node_type", "'array'", lambda value: value == "array"),
    Rule("attributes", "texts and numbers by name", _are_attributes),
    Rule("shape", "sizes of dims", lambda value: _is_list(value, _is_size)),
    Rule("dimension_names", "names of dims, each once", lambda value: _is_list(value, is_name) and len({*value}) == len(value)),
    Rule("data_type", "numbers, booleans or string", lambda value: isinstance(value, str) and value in _DTYPES),
    Rule("chunk_grid.name", "'regular'", lambda value: value == "regular"),
    Rule("chunk_grid.configuration.chunk_shape", "sizes of at least 1", lambda value: _is_list(value, lambda each: _is_size(each, 1))),
    Rule("chunk_key_encoding.name", "'default'", lambda value: value == "default"),
    Rule("chunk_key_encoding.configuration.separator", "'/'", lambda value: value == "/"),
    Rule("codecs", "codecs that runs are written with", lambda value: _codecs_of(value) in _ENCODINGS),
    Rule("fill_value", "a number or a text", lambda value: _is_number(value) or isinstance(value, str) or (_is_list(value, _is_number) and len(value) == 2)),
    Rule("storage_transformers", "none", lambda value: value in (None, [])),
)  # fmt: skip


def _codecs_of(value: Any) -> tuple[str, ...]:
    """Name the codecs; a byte order other than little is none that we know."""
    if not _is_list(value, lambda each: isinstance(each, dict) and isinstance(each.get("name"), str)):
        return ()
    first = value[0].get("configuration") if value else None
    is_little = not isinstance(first, dict) or first.get("endian") in (None, "little")
    return tuple(each["name"] for each in value) if is_little else ()


class ArrayLayout:
    """One array's metadata, checked.

    Attributes
    ----------
    key : str
    shape, chunk : tuple of int
    dims : tuple of str
    dtype : dtype
        Of text: object.
    codecs : tuple of str
    """

    def __init__(self, key: str, metadata: Mapping[str, Any]) -> None:
        self.key, self.metadata = key, metadata
        self.shape: tuple[int, ...] = tuple(metadata["shape"])
        self.chunk: tuple[int, ...] = tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"])
        self.dims: tuple[str, ...] = tuple(metadata["dimension_names"])
        self.codecs = _codecs_of(metadata["codecs"])
        is_string = metadata["data_type"] == "string"
        self.dtype = np.dtype(object) if is_string else np.dtype(metadata["data_type"]).newbyteorder("<")

    @property
    def grows(self) -> bool:
        return self.dims[:1] == (STEP,)

    @property
    def grid(self) -> tuple[int, ...]:
        """How many chunks lie along each dim."""
        return tuple(-(-size // chunk) for size, chunk in zip(self.shape, self.chunk, strict=True))

    @property
    def is_packed(self) -> bool:
        """Whether it is compressed as a whole, and nothing can be added to it."""
        return "zstd" in self.codecs

    @property
    def has_sums(self) -> bool:
        """Whether checksums of its steps lie beside it: its chunks grow in place."""
        return self.grows and self.codecs == PLAIN

    @property
    def fill(self) -> Any:
        """What stands where no chunk was written."""
        value = self.metadata["fill_value"]
        if is_text(self.codecs):
            return str(value)
        return complex(*map(float, value)) if isinstance(value, list) else self.dtype.type(float(value))

    def file(self, place: tuple[int, ...]) -> str:
        return "/".join((self.key, "c", *map(str, place)))


class Committed(NamedTuple):
    """What a run's root says, checked.

    Attributes
    ----------
    document : dict
    arrays : dict of str to ArrayLayout
    count : int
        Steps that are committed.
    digest : bool or None
        Whether the record is as it was written; None where that cannot be seen.
    """

    document: dict[str, Any]
    arrays: dict[str, ArrayLayout]
    count: int
    digest: bool | None


def validated(files: Files, path: Any) -> Committed:
    """Read what is committed, if all of it can be used safely.

    Raises
    ------
    StoreError
        It names what is wrong, where, and whether steps can be read all the same.
    """
    try:
        text = files.read(COMMIT, _MOST_COMMIT)
    except Damaged as error:
        raise StoreError(f"{path} cannot be opened: {error}. No step is readable without it.") from None
    if text is None:
        raise StoreError(f"There is no run at {path}: no {COMMIT} in it. A monitor makes one.")
    try:
        document = _parsed(text)
        _check_version(document, path)
        found = _checked(document, _has_digest(text, document))
        for array in found.arrays.values():
            _check_claims(array, files)
    except Damaged as error:
        raise StoreError(f"{path} is damaged: {error}. No step is read until that is mended.") from None
    return found


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        document = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{COMMIT} is not JSON: {str(error)[:200]}") from None
    if not isinstance(document, dict):
        raise Damaged(f"{COMMIT} holds no metadata")
    return document


def _check_version(document: Mapping[str, Any], path: Any) -> None:
    attributes = document.get("attributes")
    version = attributes.get("throughtime_run") if isinstance(attributes, dict) else None
    if version is None:
        raise StoreError(f"{path} is no run of throughtime, though it is Zarr. Give another path.")
    if not _is_size(version):
        raise Damaged(f"its layout is {str(version)[:50]!r}, not a number")
    if version > VERSION:
        raise StoreError(
            f"{path} was written by a newer throughtime (layout {version}, this one knows {VERSION}): "
            "pip install --upgrade throughtime."
        )


def _has_digest(text: bytes, document: Mapping[str, Any]) -> bool | None:
    """Whether the record's checksum is right; None for one that was written without."""
    head = HEAD.encode()
    if text.startswith(head):
        at = len(head)
        rest = text[:at] + NO_DIGEST.encode() + text[at + len(NO_DIGEST) :]
        return text[at : at + len(NO_DIGEST)] == f"{checksum(rest):08x}".encode()
    return False if {SUMS, DIGEST} & {*document["attributes"]} else None


def _checked(document: dict[str, Any], digest: bool | None) -> Committed:
    _check(document, _GROUP, "the root")
    count = document["attributes"].get("n_steps")
    if not _is_size(count):
        raise Damaged(f"n_steps is {str(count)[:50]!r}, not a number of steps")
    consolidated = document.get("consolidated_metadata")
    nodes = consolidated.get("metadata") if isinstance(consolidated, dict) else None
    if not isinstance(nodes, dict):
        raise Damaged(f"{COMMIT} does not tell of layers and variables")
    arrays = {}
    for key, metadata in nodes.items():
        _check_key(key, nodes)
        is_array = isinstance(metadata, dict) and metadata.get("node_type") == "array"
        _check(metadata, _ARRAY if is_array else _GROUP, key)
        if is_array:
            arrays[key] = ArrayLayout(key, metadata)
            _check_array(arrays[key], count)
    _check_sizes(arrays)
    _check_sums(document["attributes"].get(SUMS), arrays)
    if arrays and STEP not in arrays:
        raise Damaged(f"there is no {STEP}")
    return Committed(document, arrays, count, digest)


def _check(metadata: Any, rules: tuple[Rule, ...], key: str) -> None:
    for rule in rules:
        value = metadata
        for part in rule.place.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if not rule.holds(value):
            raise Damaged(f"{rule.place} of {key} is {str(value)[:100]!r}, not {rule.expected}")


def _check_key(key: str, nodes: Mapping[str, Any]) -> None:
    parts = key.split("/")
    if not all(map(is_name, parts)) or len(parts) > _DEEPEST:
        raise Damaged(f"{key[:200]!r} is no name of a layer or variable")
    for end in range(1, len(parts)):
        parent = nodes.get("/".join(parts[:end]))
        if not isinstance(parent, dict) or parent.get("node_type") != "group":
            raise Damaged(f"{key[:200]!r} lies in no group")
    attributes = nodes[key].get("attributes") if isinstance(nodes[key], dict) else None
    own = attributes.get(NAME, "name") if isinstance(attributes, dict) else "name"
    if not isinstance(own, str) or not own or "/" in own:
        raise Damaged(f"{key[:200]!r} has a name that nothing can have: {str(own)[:50]!r}")


def _check_array(array: ArrayLayout, count: int) -> None:
    if not len(array.shape) == len(array.chunk) == len(array.dims):
        raise Damaged(
            f"{array.key} has {len(array.shape)} sizes, {len(array.chunk)} of chunks, {len(array.dims)} dims"
        )
    if STEP in array.dims[1:] or (array.key == STEP and (array.dims != (STEP,) or array.dtype.kind != "i")):
        raise Damaged(f"{array.key} has the dims {', '.join(array.dims)}")
    if array.grows and array.shape[0] != count:
        raise Damaged(f"{array.key} has {array.shape[0]} of {count} steps")
    if is_text(array.codecs) != (array.dtype.kind == "O") or (array.grows and array.dtype.kind == "O"):
        raise Damaged(f"{array.key} holds {array.metadata['data_type']} in an encoding that does not fit")
    if prod(array.chunk) * array.dtype.itemsize > _MOST_CHUNK:
        raise Damaged(f"a chunk of {array.key} would have {prod(array.chunk) * array.dtype.itemsize:,} bytes")
    try:
        _ = array.fill
    except (ValueError, TypeError, OverflowError):
        raise Damaged(f"fill_value of {array.key} is {str(array.metadata['fill_value'])[:50]!r}") from None


def _check_sizes(arrays: Mapping[str, ArrayLayout]) -> None:
    """Refuse two sizes of one dim in one layer."""
    sizes: dict[tuple[str, str], tuple[int, str]] = {}
    for key, array in arrays.items():
        for dim, size in zip(array.dims, array.shape, strict=True):
            known, other = sizes.setdefault((key.rpartition("/")[0], dim), (size, key))
            if known != size:
                raise Damaged(f"{dim} has the size {size} in {key} and {known} in {other}")


def _check_sums(sums: Any, arrays: Mapping[str, ArrayLayout]) -> None:
    if sums is None:
        return
    if not isinstance(sums, list) or not all(isinstance(each, list) for each in sums):
        raise Damaged(f"{SUMS} are no lists of variables")
    keys = [key for each in sums for key in each]
    summed = {key for key in keys if isinstance(key, str) and key in arrays and arrays[key].has_sums}
    if not all(sums) or len(summed) < len(keys):
        raise Damaged(f"{SUMS} tell of what is no variable, or of one twice")


def _check_claims(array: ArrayLayout, files: Files) -> None:
    """Refuse an array that claims far more than its files can hold."""
    # Of what grows the last chunk of steps shows the size of all, without a look at each file.
    is_whole = not array.grows or array.is_packed or array.key == STEP
    if not all(array.shape):
        return
    sizes, grid = (array.shape, array.grid) if is_whole else (array.shape[1:], array.grid[1:])
    claimed, chunks = prod(sizes) * array.dtype.itemsize, prod(grid)
    if claimed <= _MOST_UNSEEN and chunks <= _MOST_ABSENT:
        return
    on_disk = list(files.sizes(f"{array.key}/c" if is_whole else f"{array.key}/c/{array.grid[0] - 1}"))
    most = _MOST_UNSEEN + sum(on_disk) * max(RATIOS[codec] for codec in array.codecs)
    if claimed > most or chunks > _MOST_ABSENT + len(on_disk):
        raise Damaged(
            f"{array.key} claims {claimed:,} bytes in {chunks:,} chunks; its files have {sum(on_disk):,}"
        )
