"""One variable of a run: an array that grows along `step`, chunk by chunk.

Zarr creates the array and reads it. Zarr's writer takes one or two milliseconds per call, regardless of size,
and a record has about fifty variables. Here a step that fills its chunk is encoded with the same codec and
moved into place. Small steps share an uncompressed chunk, and are written to a part of it that no reader uses
yet.
"""

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from throughtime._common.atomic import put
from throughtime._errors import StoreError
from throughtime._store.codecs import (
    COMPRESSED,
    PLAIN,
    Array,
    DamageError,
    compress,
    decode,
    empty_value,
    row_checksums,
)
from throughtime._store.schema import ArrayLayout

_CHUNK_BYTES, _MOST_STEPS = 32768, 256  # each step rewrites its chunk


def steps_a_chunk(nbytes: int) -> int:
    """Return the number of steps that share a chunk, for the size of one step."""
    return max(1, min(_MOST_STEPS, _CHUNK_BYTES // max(1, nbytes)))


class StoredArray:
    """Appends steps to one array of a run; the run decides what is committed.

    `metadata` is the array's `zarr.json` with the committed shape, whose first axis is the step. An array
    with another layout raises StoreError.
    """

    def __init__(self, folder: Path, metadata: Mapping[str, Any]) -> None:
        self._folder, self.metadata = folder, metadata
        self._chunks = f"{folder}/c"
        layout = ArrayLayout(folder.name, metadata)
        self.shape, self.dims, self.dtype, self._chunk = layout.shape, layout.dims, layout.dtype, layout.chunk
        self._codecs, self.has_sums = layout.codecs, layout.has_sums
        if self._codecs not in (PLAIN, COMPRESSED):
            raise StoreError(f"{folder} was packed or written by another program; steps cannot be added.")
        self._last: Array | None = None  # the last chunk of steps, if more steps fit

    @property
    def nbytes(self) -> int:
        return int(prod(self.shape) * self.dtype.itemsize)

    @property
    def steps_a_chunk(self) -> int:
        return self._chunk[0]

    def append(self, rows: Array) -> None:
        """Append steps, (step, …); a dim may grow, and missing values are NaN or 0."""
        sizes = tuple(max(old, new) for old, new in zip(self.shape[1:], rows.shape[1:], strict=True))
        while len(rows):
            number, inside = divmod(self.shape[0], self._chunk[0])
            part, rows = rows[: self._chunk[0] - inside], rows[self._chunk[0] - inside :]
            steps = self._for_more(number, inside, sizes)
            steps[(slice(inside, inside + len(part)), *map(slice, part.shape[1:]))] = part
            if not (
                inside and sizes == self.shape[1:] and self._write_in_place(number, steps, inside, len(part))
            ):
                self._write(number, steps)
            self.shape = (self.shape[0] + len(part), *sizes)
            self._last = steps if inside + len(part) < self._chunk[0] else None

    def missing(self, steps: int) -> Array:
        """Return steps, (step, …), without values: NaN, or 0."""
        return np.full((steps, *self.shape[1:]), empty_value(self.dtype), self.dtype)

    def checksum(self, row: Array) -> int:
        """Return the checksum of one step, (1, …), as it is stored."""
        return next(row_checksums(row, self._chunk[1:]))

    def read(self, start: int, stop: int) -> Array:
        length = self._chunk[0]
        chunks = [self._read(number) for number in range(start // length, -(-stop // length))]
        offset = start // length * length
        return np.concatenate(chunks)[(slice(start - offset, stop - offset), *map(slice, self.shape[1:]))]

    def cut(self) -> None:
        """Remove chunks beyond the shape; values beyond it in the last chunk are overwritten later."""
        kept = -(-self.shape[0] // self._chunk[0])
        for found in (self._folder / "c").glob("*"):
            if found.name.isdecimal() and int(found.name) < kept - 1:
                continue
            if found.name.isdecimal() and int(found.name) == kept - 1:
                self._cut_columns(found)
            elif found.is_dir():
                shutil.rmtree(found)
            else:
                found.unlink()

    def write_shape(self) -> None:
        """Update the array's `zarr.json`, which does not include the appended steps yet."""
        put(f"{self._folder}/zarr.json", json.dumps({**self.metadata, "shape": list(self.shape)}).encode())

    def _cut_columns(self, folder: Path) -> None:
        """Remove from one chunk of steps the columns that were not committed."""
        known = {"/".join(map(str, column)) for column in np.ndindex(self._grid(self.shape[1:]))}
        for file in folder.rglob("*"):
            if file.is_file() and file.relative_to(folder).as_posix() not in known:
                file.unlink()

    def _grid(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Return the number of chunks along each dim except the first."""
        return tuple(-(-size // chunk) for size, chunk in zip(sizes, self._chunk[1:], strict=True))

    def _empty(self, sizes: tuple[int, ...]) -> Array:
        whole = [count * chunk for count, chunk in zip(self._grid(sizes), self._chunk[1:], strict=True)]
        return np.full((self._chunk[0], *whole), empty_value(self.dtype), self.dtype)

    def _for_more(self, number: int, inside: int, sizes: tuple[int, ...]) -> Array:
        """Return the chunk of steps for the next step, widened if necessary."""
        if not inside:
            return self._empty(sizes)
        before = self._last
        if before is not None and sizes == self.shape[1:]:
            return before
        before = self._read(number) if before is None else before
        steps = self._empty(sizes)
        steps[(slice(inside), *map(slice, before.shape[1:]))] = before[:inside]
        return steps

    def _file(self, number: int, column: tuple[int, ...]) -> str:
        return "/".join((self._chunks, str(number), *map(str, column)))

    def _parts(self, steps: Array) -> Iterator[tuple[tuple[int, ...], Array]]:
        """Yield adjacent chunks as views."""
        if steps.shape == self._chunk:
            yield (0,) * (steps.ndim - 1), steps
            return
        for column in np.ndindex(self._grid(steps.shape[1:])):
            bounds = zip(column, self._chunk[1:], strict=True)
            yield column, steps[(slice(None), *(slice(at * size, (at + 1) * size) for at, size in bounds))]

    def _write_in_place(self, number: int, steps: Array, first: int, count: int) -> bool:
        """Write some steps into an existing chunk, without changing its committed steps."""
        if self._codecs != PLAIN or steps.shape != self._chunk:
            return False
        file = self._file(number, (0,) * (steps.ndim - 1))
        try:
            write_into(file, first * steps[0].nbytes, steps[first : first + count].tobytes())
        except FileNotFoundError:
            return False
        return True

    def _write(self, number: int, steps: Array) -> None:
        for column, part in self._parts(steps):
            put(self._file(number, column), self._encode(np.ascontiguousarray(part)))

    def _encode(self, chunk: Array) -> bytes:
        return chunk.tobytes() if self._codecs == PLAIN else compress(chunk)

    def _read(self, number: int) -> Array:
        """Read a chunk of steps; values beyond the shape were never committed."""
        steps = self._empty(self.shape[1:])
        for column, part in self._parts(steps):
            file = Path(self._file(number, column))
            try:
                part[...] = decode(file.read_bytes(), self._codecs, self.dtype, self._chunk)
            except FileNotFoundError:
                if not any(column):  # others exist only since a dim has grown
                    raise StoreError(
                        f"{file} is missing: the run is damaged and cannot be continued."
                    ) from None
            except DamageError as error:
                raise StoreError(f"{file} is damaged: {error}. The run cannot be continued.") from None
        return steps


def write_into(file: str, start: int, content: bytes) -> None:
    with open(file, "r+b", buffering=0) as out:
        out.seek(start)
        if out.write(content) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file)
