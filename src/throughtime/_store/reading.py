"""Reads the arrays of a run lazily, chunk by chunk; each file is checked before it is decoded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from xarray.backends.common import BackendArray
from xarray.core import indexing

from throughtime._errors import StoreError
from throughtime._store.codecs import MOST_TEXT, Array, decoded, is_text
from throughtime._store.files import DamageError, Files
from throughtime._store.schema import STEP, ArrayLayout

_HEADERS = 4096  # bytes that a codec may add, in addition to a hundredth of the chunk


class StoredValues(BackendArray):
    """Values of one array, read when they are used; path and steps (empty for labels) are for errors."""

    def __init__(
        self, files: Files, layout: ArrayLayout, path: Any, steps: Sequence[int] | Array = ()
    ) -> None:
        self._files, self._layout, self._path, self._steps = files, layout, path, steps
        self.shape, self.dtype = layout.shape, layout.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.BASIC, self._read_part
        )

    def read(self, start: int = 0, stop: int | None = None) -> Array:
        """Read steps, (step, …), or all labels; the error names the steps of a damaged chunk."""
        values: Array = self._read_part((slice(start, stop),))
        return values

    def _read_part(self, key: tuple[int | slice, ...]) -> Any:
        key = (*key, *[slice(None)] * (len(self.shape) - len(key)))
        wanted = [
            range(self.shape[axis])[part] if isinstance(part, slice) else range(part, part + 1)
            for axis, part in enumerate(key)
        ]
        found = np.empty([len(each) for each in wanted], self.dtype)
        for places in product(*map(_overlaps, wanted, self._layout.chunk)):
            chunk = self._chunk(tuple(number for number, _, _ in places))
            found[tuple(into for _, into, _ in places)] = chunk[tuple(part for _, _, part in places)]
        values = found.reshape(
            [len(each) for each, part in zip(wanted, key, strict=True) if isinstance(part, slice)]
        )
        return values.astype(str) if self.dtype.kind == "O" else values

    def _chunk(self, place: tuple[int, ...]) -> Array:
        try:
            return read_chunk(self._files, self._layout, place)
        except DamageError as error:
            raise StoreError(self._explained(place, str(error))) from None

    def _explained(self, place: tuple[int, ...], problem: str) -> str:
        key, length = self._layout.key, self._layout.chunk[0] if place else 1
        if not self._layout.grows or not len(self._steps):
            return f"{self._path} is damaged: {key} cannot be read: {problem}."
        first = place[0] * length
        within, total = self._steps[first : first + length], len(self._steps)
        named = f"step {within[0]}" if len(within) == 1 else f"steps {within[0]} to {within[-1]}"
        rest = f"The other {total - len(within)} of {total} steps are readable" if total > len(within) else ""
        others = f"{rest}: select them with isel(step=…)." if rest else "Other variables are readable."
        return f"{self._path} is damaged: {key} of {named} cannot be read: {problem}. {others}"


def read_chunk(files: Files, layout: ArrayLayout, place: tuple[int, ...]) -> Array:
    """Read one chunk; one that is missing or cannot be decoded raises DamageError."""
    name, nbytes = layout.file(place), int(np.prod(layout.chunk, dtype=object)) * layout.dtype.itemsize
    content = files.read(name, MOST_TEXT if is_text(layout.codecs) else nbytes + nbytes // 100 + _HEADERS)
    if content is not None:
        return decoded(content, layout.codecs, layout.dtype, layout.chunk)
    # Empty chunks have no file: in runs packed by earlier versions, and in steps before a dim has grown.
    is_left_out = layout.is_packed and "crc32c" not in layout.codecs
    if is_left_out or (not layout.is_packed and layout.grows and any(place[1:])):
        return np.full(layout.chunk, layout.fill, layout.dtype)
    raise DamageError(f"{name} is missing")


def _overlaps(wanted: range, chunk: int) -> Iterator[tuple[int, slice, slice]]:
    """Yield each chunk along one dim, its slice of the wanted range, and the slice within the chunk."""
    if not wanted:
        return
    for number in range(wanted[0] // chunk, wanted[-1] // chunk + 1):
        ends = [
            len(range(wanted.start, bound, wanted.step)) for bound in (number * chunk, (number + 1) * chunk)
        ]
        first, last = ends[0], min(ends[1], len(wanted))
        if first < last:
            start = number * chunk
            yield (
                number,
                slice(first, last),
                slice(wanted[first] - start, wanted[last - 1] - start + 1, wanted.step),
            )


def recorded(files: Files, arrays: Mapping[str, ArrayLayout], path: Any) -> Array:
    """Read the training steps of a run."""
    steps = arrays.get(STEP)
    return np.empty(0, np.int64) if steps is None else StoredValues(files, steps, path).read()
