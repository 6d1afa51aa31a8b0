"""Opens a run: plain Zarr that is checked once when it is opened, and then read lazily."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import xarray as xr
from xarray.core import indexing

from throughtime._arguments import takes
from throughtime._errors import StoreError, warn
from throughtime._store.files import Files, Zip, files_at
from throughtime._store.reading import StoredValues, recorded
from throughtime._store.schema import COMMIT, DIGEST, NAME, STEP, SUMS
from throughtime._store.validate import Committed, validated
from throughtime._tree import Tree

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
        an array from a damaged file also raises it, and the message names variable and steps.

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
    files, commit = opened(path)
    if commit.digest is False:
        warn(f"{path}/{COMMIT} was changed after it was written. `throughtime check` checks the whole run.")
    tree = tree_of(files, commit, path, in_chunks=True)
    tree.encoding["source"] = str(path)
    return tree


def opened(path: str | os.PathLike[str]) -> tuple[Files, Committed]:
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
    return files, validated(files, path)


def tree_of(files: Files, commit: Committed, path: Any, *, in_chunks: bool) -> xr.DataTree:
    """Return the tree; only labels are read, and damaged ones raise StoreError."""
    steps = recorded(files, commit.arrays, path)
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
        return _nested(commit.document, groups, steps)
    except (ValueError, KeyError) as error:  # two nodes with one name
        raise StoreError(f"{path} is damaged: its layers do not form a tree: {error}.") from None


def _nested(
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
