"""Encodes and decodes chunks with the few codecs of runs; content is checked before it is unpacked."""

from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any

import google_crc32c
import numcodecs
import numpy as np
import numpy.typing as npt
from zarr.codecs import BloscCodec, Crc32cCodec

Array = npt.NDArray[Any]

# Zarr's names. This is enough for text labels of some thousand names.
PLAIN, TEXT = ("bytes",), ("vlen-utf8",)
COMPRESSED = ("bytes", "blosc", "crc32c")
COMPRESSION = (BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"), Crc32cCodec())
MOST_TEXT = 2**24  # bytes
_BLOSC = numcodecs.Blosc(cname="zstd", clevel=1, shuffle=numcodecs.Blosc.SHUFFLE)
_ZSTD, _TEXT = numcodecs.Zstd(), numcodecs.VLenUTF8()

# Best compression ratio of each codec, for zeros; a chunk that claims more is refused.
RATIOS = {"bytes": 1, "vlen-utf8": 1, "crc32c": 1, "blosc": 1300, "zstd": 40_000}


class DamageError(ValueError):
    """Part of a run is damaged; the caller adds the run's path and what is still readable."""


def is_text(codecs: tuple[str, ...]) -> bool:
    return codecs[0] == "vlen-utf8"


def checksum(content: bytes) -> int:
    """Return the CRC-32C of some bytes, like Zarr's codec."""
    return int(google_crc32c.value(content))


def compress(values: Array) -> bytes:
    """Encode with the codecs of `COMPRESSED`."""
    content = bytes(_BLOSC.encode(values))
    return content + checksum(content).to_bytes(4, "little")


def decode(content: bytes, codecs: tuple[str, ...], dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """Decode one chunk, or raise DamageError if the content cannot come from these codecs."""
    wanted = MOST_TEXT if is_text(codecs) else prod(shape) * dtype.itemsize
    try:
        for codec in reversed(codecs[1:]):
            content = _UNDO[codec](content, wanted)
        if is_text(codecs):
            return _texts(content, prod(shape)).reshape(shape)
    except (ValueError, RuntimeError) as error:
        raise DamageError(str(error)) from None
    if len(content) != wanted:
        raise DamageError(f"it has {len(content):,} bytes instead of {wanted:,}")
    return np.frombuffer(content, dtype).reshape(shape)


def row_checksums(rows: Array, chunk: tuple[int, ...]) -> Iterator[int]:
    """Yield a checksum for each step of an array (step, …), which remains valid if other dims grow.

    `chunk` has the sizes of a chunk without its steps; values beyond the first chunk count if they are not
    empty.
    """
    if rows.shape[1:] == chunk:
        yield from (checksum(row.tobytes()) for row in rows)
        return
    grid = tuple(max(1, -(-size // each)) for size, each in zip(rows.shape[1:], chunk, strict=True))
    for row in rows:
        whole = np.full(
            [n * each for n, each in zip(grid, chunk, strict=True)], empty_value(rows.dtype), rows.dtype
        )
        whole[tuple(map(slice, row.shape))] = row
        total = 0
        for place in np.ndindex(grid):
            cell = whole[tuple(slice(at * n, (at + 1) * n) for at, n in zip(place, chunk, strict=True))]
            is_empty = np.isnan(cell) if cell.dtype.kind in "fc" else cell == 0
            if not any(place) or not is_empty.all():
                total = int(google_crc32c.extend(total, cell.tobytes()))
        yield total


def empty_value(dtype: np.dtype[Any]) -> float:
    return np.nan if dtype.kind in "fc" else 0


def _strip_checksum(content: bytes, _: int) -> bytes:
    if len(content) < 4 or checksum(content[:-4]) != int.from_bytes(content[-4:], "little"):
        raise DamageError("it does not match its checksum")
    return content[:-4]


def _from_blosc(content: bytes, wanted: int) -> bytes:
    inflated, deflated = (int.from_bytes(content[at : at + 4], "little") for at in (4, 12))
    if len(content) < 16 or inflated != wanted or deflated != len(content):
        raise DamageError(f"{len(content):,} bytes that unpack to {inflated:,} are no chunk of {wanted:,}")
    return bytes(_BLOSC.decode(content))


def _from_zstd(content: bytes, most: int) -> bytes:
    inflated = _zstd_size(content)
    if inflated is None or inflated > most:
        raise DamageError(f"it would unpack to {inflated} bytes instead of {most:,}")
    return bytes(_ZSTD.decode(content))


def _zstd_size(content: bytes) -> int | None:
    """Read from a frame's header how large its content is: RFC 8878, section 3.1.1."""
    if len(content) < 6 or content[:4] != b"\x28\xb5\x2f\xfd":
        return None
    flags = content[4]
    is_single, width = bool(flags & 32), (0, 2, 4, 8)[flags >> 6]
    width = width or int(is_single)
    start = 5 + (not is_single) + (0, 1, 2, 4)[flags & 3]
    size = int.from_bytes(content[start : start + width], "little") + (256 if width == 2 else 0)
    return size if width else None


def _texts(content: bytes, count: int) -> Array:
    if int.from_bytes(content[:4], "little") != count:
        raise DamageError(f"it does not have {count:,} texts")
    texts: list[str] = _TEXT.decode(content).tolist()
    return np.array(texts, dtype=str)


_UNDO: Mapping[str, Callable[[bytes, int], bytes]] = {
    "crc32c": _strip_checksum,
    "blosc": _from_blosc,
    "zstd": _from_zstd,
}
