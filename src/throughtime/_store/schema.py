"""Rules for the content of a run: names, metadata of groups and arrays, codecs, sizes."""

import hashlib
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from throughtime._store.codecs import COMPRESSED, PLAIN, TEXT, is_text

VERSION, VERSION_KEY = 1, "throughtime_run"  # version of the layout, an attribute of the root
STEP, COMMIT = "step", "zarr.json"
NAME = "throughtime_name"  # attribute with the original name, if the folder's name differs
SUMS, DIGEST = "checksums", "checksum"  # attributes of the root
SUMS_KEY = f"{STEP}/{SUMS}"  # of an array that Zarr does not read
HEAD = f'{{"zarr_format": 3, "node_type": "group", "attributes": {{"{DIGEST}": "'  # start of a commit
NO_DIGEST = "0" * 8

_DTYPES = {
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128", "string"),
}
_ENCODINGS = {
    *(PLAIN, COMPRESSED, (*PLAIN, "zstd", "crc32c"), (*PLAIN, "crc32c")),
    *((*TEXT, "zstd", "crc32c"), (*TEXT, "crc32c")),
}
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\\/]")
_LONGEST, DEEPEST = 255, 64  # characters of a name, names in a path
_LONGEST_PART = 120  # bytes of a part of a folder's path


def is_name(value: Any) -> bool:
    """Whether a text may be a part of a path, or the name of a dim."""
    fits = isinstance(value, str) and 0 < len(value) <= _LONGEST and not _UNFIT.search(value)
    return fits and value not in (".", "..", COMMIT)


@lru_cache(maxsize=4096)
def folder_of(key: str) -> str:
    r"""Return the folder of a layer or variable: its path, if that is a valid folder.

    In an invalid part, invalid characters are replaced and a few digits of its hash are added.

    >>> folder_of("encoder/lstm/hidden"), folder_of("a\\b/hidden")
    ('encoder/lstm/hidden', 'a_b~c62016d0/hidden')
    """
    *layers, name = key.split("/")
    # The root has an array `step`; a layer of that name gets another folder.
    return "/".join([*(_part(each, is_layer=True) for each in layers), _part(name, is_layer=False)])


def folder_of_layer(path: str) -> str:
    return "/".join(_part(each, is_layer=True) for each in path.split("/"))


def _part(name: str, *, is_layer: bool) -> str:
    is_free = not (is_layer and name == STEP) and name != COMMIT and not name.startswith(".")
    if is_free and is_name(name) and name.isprintable() and len(name.encode()) <= _LONGEST_PART:
        return name
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:40]
    return f"{readable}~{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def _is_list(value: Any, each: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and len(value) <= 32 and all(map(each, value))


def is_size(value: Any, least: int = 0) -> bool:
    return type(value) is int and least <= value < 2**63


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) or value in ("NaN", "Infinity", "-Infinity")


def _is_fill(value: Any) -> bool:
    return isinstance(value, int | float | str) or (_is_list(value, _is_number) and len(value) == 2)


def _are_dims(value: Any) -> bool:
    return _is_list(value, is_name) and len({*value}) == len(value)


def _are_attributes(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(each, str | int | float) for key, each in value.items() if key != SUMS
    )


class Field(NamedTuple):
    """A place in a node's metadata, a description of valid values, and a check."""

    place: str
    expected: str
    holds: Callable[[Any], bool]


FORMAT = Field("zarr_format", "3", lambda value: type(value) is int and value == 3)
GROUP = (
    FORMAT,
    Field("node_type", "'group'", lambda value: value == "group"),
    Field("attributes", "texts and numbers by name", _are_attributes),
)
ARRAY = (
    FORMAT,
    Field("node_type", "'array'", lambda value: value == "array"),
    Field("attributes", "texts and numbers by name", _are_attributes),
    Field("shape", "sizes of dims", lambda value: _is_list(value, is_size)),
    Field("dimension_names", "names of dims, each once", _are_dims),
    Field(
        "data_type", "numbers, booleans or text", lambda value: isinstance(value, str) and value in _DTYPES
    ),
    Field("chunk_grid.name", "'regular'", lambda value: value == "regular"),
    Field(
        "chunk_grid.configuration.chunk_shape",
        "sizes of at least 1",
        lambda value: _is_list(value, lambda size: is_size(size, 1)),
    ),
    Field("chunk_key_encoding.name", "'default'", lambda value: value == "default"),
    Field("chunk_key_encoding.configuration.separator", "'/'", lambda value: value == "/"),
    Field(
        "codecs",
        "codecs that runs are written with (`throughtime export` makes a copy)",
        lambda value: _codecs_of(value) in _ENCODINGS,
    ),
    Field("fill_value", "a number or a text", _is_fill),
    Field("storage_transformers", "none", lambda value: value in (None, [])),
)


def _codecs_of(value: Any) -> tuple[str, ...]:
    """Return the names of the codecs; another byte order than little-endian is not supported."""
    if not _is_list(value, lambda each: isinstance(each, dict) and isinstance(each.get("name"), str)):
        return ()
    first = value[0].get("configuration") if value else None
    is_little = not isinstance(first, dict) or first.get("endian") in (None, "little")
    return tuple(each["name"] for each in value) if is_little else ()


class ArrayLayout:
    """One array's checked metadata; the dtype of text is `object`."""

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
        """Number of chunks along each dim."""
        return tuple(-(-size // chunk) for size, chunk in zip(self.shape, self.chunk, strict=True))

    @property
    def is_packed(self) -> bool:
        """Whether the array is compressed as a whole, so that nothing can be added."""
        return "zstd" in self.codecs

    @property
    def has_sums(self) -> bool:
        """Whether its steps have separate checksums, because its chunks grow in place."""
        return self.grows and self.codecs == PLAIN

    @property
    def fill(self) -> Any:
        value = self.metadata["fill_value"]
        if is_text(self.codecs):
            return str(value)
        return complex(*map(float, value)) if isinstance(value, list) else self.dtype.type(float(value))

    def file(self, place: tuple[int, ...]) -> str:
        return "/".join((self.key, "c", *map(str, place)))
