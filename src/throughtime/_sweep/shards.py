"""The shards of a data set: functions that load one each."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle

from throughtime._errors import SweepError
from throughtime._inputs import structures
from throughtime._inputs.batch import Batch, each_batch, take
from throughtime._monitor.provenance import fingerprint

from .parts import DATA, written

Load = Callable[[], Any]
_EXPECTED = (
    "data= is a tuple (x, y) or (x, y, sample_weight) of arrays, a dataset of such batches, or a list of "
    "functions that return one each."
)


@dataclass(frozen=True)
class Shards:
    """Functions that load a shard each, and what identifies the data."""

    loads: tuple[Load, ...]
    identity: Any


def shards_of(data: Any, size: int, folder: Path, *, spool: bool) -> Shards:
    """Split data into shards; arrays into those of `size` samples.

    A dataset, which may change its order, is written once to the sweep's folder; `spool` writes arrays there
    as well, for other processes.
    """
    if isinstance(data, Sequence) and not hasattr(data, "shape") and data and all(map(callable, data)):
        return Shards(tuple(data), [_name(load) for load in data])
    if isinstance(data, tuple) and 2 <= len(data) <= 3:
        if data[1] is None:
            raise SweepError(f"The data have no labels. {_EXPECTED}")
        batch = take(*data)
        found: Iterator[Batch] = _slices(batch, size)
        identity: Any = fingerprint((batch.x, batch.y, batch.sample_weight))["sha256"]
        if not spool:
            return Shards(tuple(partial(_content, each) for each in found), identity)
        return Shards(_spooled(found, folder / DATA), identity)
    if not hasattr(data, "__iter__") and not hasattr(data, "__getitem__"):
        raise SweepError(f"{_EXPECTED} This is a {type(data).__name__}.")
    loads = _spooled(each_batch(data), folder / DATA)
    if not loads:
        raise SweepError(f"The {type(data).__name__} is empty or used up. {_EXPECTED}")
    return Shards(loads, [fingerprint(load())["sha256"] for load in loads])


def batch_of(load: Load) -> Batch:
    """Load one shard."""
    content = load()
    if not isinstance(content, tuple) or not 2 <= len(content) <= 3 or content[1] is None:
        raise SweepError(
            f"The shard has no labels: {_name(load)} must return (x, y) or (x, y, sample_weight)."
        )
    return take(*content)


def _name(load: Load) -> str:
    return str(getattr(load, "__qualname__", getattr(load, "func", type(load).__name__)))


def _content(batch: Batch) -> tuple[Any, Any, Any]:
    return batch.x, batch.y, batch.sample_weight


def _slices(batch: Batch, size: int) -> Iterator[Batch]:
    samples = min(len(leaf) for leaf in structures.leaves(batch.x))
    for start in range(0, samples, size):
        take_rows = partial(_rows, slice(start, start + size))
        x, y, weight = (structures.mapped(take_rows, each) for each in _content(batch))
        yield Batch(x, y, weight, batch.origin)


def _rows(rows: slice, leaf: Any) -> Any:
    return None if leaf is None else leaf[rows]


def _spooled(batches: Iterator[Batch], folder: Path) -> tuple[Load, ...]:
    """Write batches to files, and return what reads them."""
    found = []
    for place, batch in enumerate(batches):
        path = folder / f"{place:06d}.pickle"
        written(path, cloudpickle.dumps(_content(batch)))
        found.append(partial(_read, path))
    return tuple(found)


def _read(path: Path) -> Any:
    with path.open("rb") as file:
        return cloudpickle.load(file)
