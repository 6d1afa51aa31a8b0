"""The folder of a sweep: its files, each written at once, and the addition of its parts.

Eight parts are added up by the worker whose part completes them, eight of these sums by the worker that
completes them, and so on, always in the same order. Files that were added up are removed.
"""

import io
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property, partial, reduce
from operator import add
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numcodecs
import numpy as np

from throughtime._common.atomic import replace_file
from throughtime._errors import StoreError, SweepError, ThroughTimeError
from throughtime._monitor.part import Part
from throughtime._monitor.sketch import Sketch

SPECIFICATION, JOB, RUN, DATA, PARTS = "sweep.json", "job.pickle", "run.zarr", "data", "parts"
GROUP = 8  # a power of 2, with which the order of additions is that of pairs, whatever was added up before
_ARRAYS = ("sums", "worst", "kept", "rows")
_LABELS = "labels"
_CODEC = numcodecs.Zstd(level=1)  # a tenth of the time that the zip's own compression takes


@dataclass(frozen=True)
class Parts:
    """Files of the parts of one checkpoint: at level n, each has up to 8ⁿ shards."""

    folder: Path
    checkpoint: int
    shards: int

    @cached_property
    def top(self) -> int:
        """Level at which one file has all shards."""
        return next(level for level in range(1, 64) if GROUP**level >= self.shards)

    def file(self, level: int, place: int) -> Path:
        return self.folder / PARTS / f"{self.checkpoint:05d}-{level}-{place:06d}.npz"

    def missing(self, names: Collection[str]) -> list[int]:
        """List the shards whose parts are in none of the files of these names."""
        levels = range(self.top + 1)
        return [
            shard
            for shard in range(self.shards)
            if not any(self.file(level, shard // GROUP**level).name in names for level in levels)
        ]

    def add_up(self, shard: int) -> None:
        """Add up each group that is complete with this shard."""
        for level in range(1, self.top + 1):
            place = shard // GROUP**level
            files = [self.file(level - 1, each) for each in self._below(level, place)]
            if not all(file.exists() for file in files):
                return
            try:
                write_part(self.file(level, place), _added([read_part(file) for file in files]))
            except (FileNotFoundError, ThroughTimeError):
                return  # another worker has added them up, or `total` will raise the error
            for file in files:
                file.unlink(missing_ok=True)

    def total(self) -> Part | None:
        """Add up what there is, without the shards that failed."""
        return self._found(self.top, 0)

    def _found(self, level: int, place: int) -> Part | None:
        file = self.file(level, place)
        if level == 0 or file.exists():
            return read_part(file) if file.exists() else None
        below = (self._found(level - 1, each) for each in self._below(level, place))
        found = [part for part in below if part is not None]
        return _added(found) if found else None

    def _below(self, level: int, place: int) -> range:
        """Places, one level below, of the files that one of this level adds up."""
        files = -(-self.shards // GROUP ** (level - 1))
        return range(place * GROUP, min((place + 1) * GROUP, files))


def _added(parts: list[Part]) -> Part:
    """Add up in pairs."""
    while len(parts) > 1:
        parts = [reduce(add, parts[place : place + 2]) for place in range(0, len(parts), 2)]
    return parts[0]


def written(path: Path, content: bytes) -> None:
    """Write a file at once."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, partial(Path.write_bytes, data=content))
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error}. Make room, or pass another folder.") from error


def write_part(path: Path, part: Part) -> None:
    content = io.BytesIO()
    np.savez(content, **dict(_entries(part)))
    written(path, _CODEC.encode(content.getvalue()))


def _entries(part: Part) -> Iterator[tuple[str, Any]]:
    shapes = {key: list(sketch.shape) for key, sketch in part.sketches.items()}
    labels = {"labels": part.labels, "samples": part.samples, "sketches": shapes}
    yield _LABELS, np.frombuffer(json.dumps(labels).encode(), np.uint8)
    for group in _ARRAYS:
        yield from ((f"{group}:{key}", array) for key, array in getattr(part, group).items())
    for key, sketch in part.sketches.items():
        yield from ((f"bins:{key}", sketch.keys), (f"counts:{key}", sketch.counts))


def read_part(path: Path) -> Part:
    """Read a part."""
    content = path.read_bytes()
    found: dict[str, dict[str, Any]] = {group: {} for group in (*_ARRAYS, "bins", "counts", _LABELS)}
    try:
        with np.load(io.BytesIO(_CODEC.decode(content)), allow_pickle=False) as file:
            for name in file.files:
                group, _, key = name.partition(":")
                found[group][key] = file[name]
        labels = json.loads(found[_LABELS][""].tobytes())
    except (OSError, RuntimeError, ValueError, KeyError, BadZipFile, EOFError) as error:
        raise SweepError(f"{path} is damaged: {error}. Remove it and sweep again.") from error
    sketches = {
        key: Sketch(tuple(shape), found["bins"][key], found["counts"][key])
        for key, shape in labels["sketches"].items()
    }
    arrays = {group: found[group] for group in _ARRAYS}
    return Part(labels["labels"], labels["samples"], sketches=sketches, **arrays)
