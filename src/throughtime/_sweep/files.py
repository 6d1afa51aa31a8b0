"""Files of a sweep: parts, each written at once, and the names of everything in its folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from throughtime._errors import StoreError, SweepError
from throughtime._monitor.part import Part
from throughtime._monitor.sketch import Sketch

SPECIFICATION, JOB, RUN, DATA, PARTS = "sweep.json", "job.pickle", "run.zarr", "data", "parts"
_ARRAYS = ("sums", "worst", "kept", "rows")
_LABELS = "labels"


def part_file(folder: Path, checkpoint: int, shard: int) -> Path:
    return folder / PARTS / f"{checkpoint:05d}-{shard:06d}.npz"


def merged_file(folder: Path, checkpoint: int) -> Path:
    return folder / PARTS / f"{checkpoint:05d}.npz"


def replaced(path: Path, content: Any) -> None:
    """Write a file at once: `content` (file) writes it beside, and it then takes the other's place.

    Raises
    ------
    StoreError
        The disk is full, or the folder cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            content(file)
        beside.replace(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error}. Make room, or pass another folder.") from error
    finally:
        with suppress(OSError):
            beside.unlink()


def write_part(path: Path, part: Part) -> None:
    replaced(path, lambda file: np.savez_compressed(file, **dict(_entries(part))))


def _entries(part: Part) -> Iterator[tuple[str, Any]]:
    groups = {group: getattr(part, group) for group in _ARRAYS}
    shapes = {key: list(sketch.shape) for key, sketch in part.sketches.items()}
    labels = {"labels": part.labels, "samples": part.samples, "sketches": shapes}
    labels["keys"] = {group: list(arrays) for group, arrays in groups.items()}
    yield _LABELS, np.frombuffer(json.dumps(labels).encode(), np.uint8)
    for group, arrays in groups.items():
        for place, array in enumerate(arrays.values()):
            yield f"{group}{place}", array
    for place, sketch in enumerate(part.sketches.values()):
        yield f"bins{place}", sketch.keys
        yield f"counts{place}", sketch.counts


def read_part(path: Path) -> Part:
    """Read a part.

    Raises
    ------
    SweepError
        The file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
        labels = json.loads(found.pop(_LABELS).tobytes())
    except (OSError, ValueError, KeyError, BadZipFile, EOFError) as error:
        raise SweepError(f"{path} is damaged: {error}. Remove it and sweep again.") from error
    groups = {
        group: {key: found[f"{group}{place}"] for place, key in enumerate(keys)}
        for group, keys in labels["keys"].items()
    }
    sketches = {
        key: Sketch(tuple(shape), found[f"bins{place}"], found[f"counts{place}"])
        for place, (key, shape) in enumerate(labels["sketches"].items())
    }
    return Part(labels["labels"], labels["samples"], sketches=sketches, **groups)
