"""Opens a run: plain Zarr that is checked once when it is opened, and then read lazily, chunk by chunk."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import xarray as xr
from xarray.backends.common import BackendArray
from xarray.core import indexing

from throughtime._errors import StoreError, warn
from throughtime._inputs import takes
from throughtime._store.codecs import MOST_TEXT, Array, DamageError, decode, is_text
from throughtime._store.files import Files, Zip, files_at
from throughtime._store.schema import COMMIT, DIGEST, NAME, STEP, SUMS, ArrayLayout
from throughtime._store.validate import Committed, read_commit
from throughtime._tree import Tree

_HEADERS = 4096  # bytes that a codec may add, in addition to a hundredth of the chunk
_OURS = {SUMS, DIGEST, NAME, "_FillValue"}  # attributes of the store, not of the model


@takes(StoreError)
def open_run(path: str | os.PathLike[str]) -> xr.DataTree:
    """Open a run as a tree with a `step` dim, lazily: arrays are read when they are used.

    This works while the run is written, and shows the steps that were committed when it was opened. A run is
    plain Zarr: `xarray.open_datatree(path, engine="zarr", chunks={})` reads the same data, but does not check
    names, sizes and files.

    Parameters
    ----------
    path : path-like
        A run's folder, or a zip of its content: `cd run.zarr && zip -r ../run.zip .`

    Returns
    -------
    DataTree
        As `capture` returns it, each variable with `step` first. The root has the gradient norms that the
        training loop reported, if any: `gradient_norm`, `clip_ratio` and more, see `Monitor.step`.

    Raises
    ------
    StoreError
        The path holds no run, a run of a newer version, or a run that is damaged or unsafe to open. Reading
        an array from a damaged file also raises it, and the message names variable and steps. Reading from a
        run that was replaced, moved or thinned after it was opened raises it too: open the run again.

    Examples
    --------
    >>> import tempfile
    >>> from throughtime import open_run, testing
    >>> from throughtime._store import Run
    >>> with tempfile.TemporaryDirectory() as folder, Run(f"{folder}/run.zarr") as run:
    ...     for step in (0, 50):
    ...         run.append(testing.decaying(rate=0.5), step)
    ...     dict(open_run(f"{folder}/run.zarr")["rnn"]["hidden_gradient"].sizes)
    {'step': 2, 'sample': 1, 'time': 50, 'unit': 4}
    """
    files, commit = open_files(path)
    if not commit.digest:
        warn(f"{path}/{COMMIT} was changed after it was written. `throughtime check` checks the whole run.")
    tree = tree_of(files, commit, path, in_chunks=True)
    tree.encoding["source"] = str(path)
    return tree


def open_files(path: str | os.PathLike[str]) -> tuple[Files, Committed]:
    """Find a run and check its commit record, or raise StoreError; all readers of a run use this."""
    try:
        files = files_at(Path(path))
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(f"{path!s:.300} cannot be opened as a run: {error}.") from None
    if files is None:
        raise StoreError(f"There is no run at {path}: it has no {COMMIT}. A monitor creates a run.")
    if isinstance(files, Zip) and not files.has(COMMIT):
        raise StoreError(
            f"{path} has no {COMMIT} at its top. Zip the content of the run's folder, not the folder itself: "
            "cd run.zarr && zip -r ../run.zip ."
        )
    return files, read_commit(files, path)


def tree_of(files: Files, commit: Committed, path: Any, *, in_chunks: bool) -> xr.DataTree:
    """Return the tree; only labels are read, and damaged ones raise StoreError."""
    steps = read_steps(files, commit.arrays, path)
    groups: dict[str, dict[str, xr.Variable]] = {"": {}}
    token = uuid4().hex
    for key, layout in commit.arrays.items():
        values = StoredValues(files, layout, path, steps)
        attributes = _attributes(layout.metadata)
        if not layout.grows:
            variable = xr.Variable(layout.dims, values.read(), attributes)
        else:
            variable = xr.Variable(layout.dims, indexing.LazilyIndexedArray(values), attributes)
            if in_chunks and key != STEP:
                chunks = dict(zip(layout.dims, layout.chunk, strict=True))
                variable = variable.chunk(chunks, name=f"{key}-{token}-")
        groups.setdefault(key.rpartition("/")[0], {})[_name(key, layout.metadata)] = variable
    try:
        return _build_tree(commit.document, groups, steps)
    except (ValueError, KeyError) as error:  # two nodes with one name
        raise StoreError(f"{path} is damaged: its layers do not form a tree: {error}.") from None


def _build_tree(
    document: Mapping[str, Any], groups: Mapping[str, dict[str, xr.Variable]], steps: Any
) -> xr.DataTree:
    nodes = {"": document, **document["consolidated_metadata"]["metadata"]}
    names = {key: _name(key, node) for key, node in nodes.items() if node["node_type"] == "group"}
    # If a layer is called step, the root cannot have a coordinate of that name, so each layer gets one.
    is_taken = STEP in names.values()

    def node(path: str) -> xr.DataTree:
        variables = dict(groups.get(path, {}))
        if is_taken:
            variables.pop(STEP, None)
            if path and any(STEP in each.dims for each in variables.values()):
                variables[STEP] = xr.Variable((STEP,), steps)
        inner = [key for key in names if key and key.rpartition("/")[0] == path]
        children = {names[key]: node(key) for key in inner}
        if len(children) < len(inner) or {*children} & {*variables}:
            raise ValueError(f"{path or 'the root'} has a name twice")
        labels = [name for name, each in variables.items() if STEP not in each.dims]
        dataset = xr.Dataset(variables, attrs=_attributes(nodes[path])).set_coords(labels)
        return Tree(dataset, children=children)

    return node("")


def _name(key: str, node: Mapping[str, Any]) -> str:
    return str(node["attributes"].get(NAME, key.rpartition("/")[2]))


def _attributes(node: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in node["attributes"].items() if name not in _OURS}


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
        self._check_same_run()
        values = found.reshape(
            [len(each) for each, part in zip(wanted, key, strict=True) if isinstance(part, slice)]
        )
        return values.astype(str) if self.dtype.kind == "O" else values

    def _chunk(self, place: tuple[int, ...]) -> Array:
        try:
            return read_chunk(self._files, self._layout, place)
        except DamageError as error:
            self._check_same_run()
            raise StoreError(self._explain(place, str(error))) from None

    def _check_same_run(self) -> None:
        """Raise StoreError if what was read may be another run's, or lie at other steps."""
        if self._files.are_replaced():
            raise StoreError(
                f"{self._path} has been replaced, moved or thinned since it was opened: open it again."
            )

    def _explain(self, place: tuple[int, ...], problem: str) -> str:
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
        return decode(content, layout.codecs, layout.dtype, layout.chunk)
    if not layout.is_packed and layout.grows and any(place[1:]):  # of steps before a dim has grown
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


def read_steps(files: Files, arrays: Mapping[str, ArrayLayout], path: Any) -> Array:
    """Read the training steps of a run."""
    steps = arrays.get(STEP)
    return np.empty(0, np.int64) if steps is None else StoredValues(files, steps, path).read()
