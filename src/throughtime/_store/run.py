"""Writes a run: the chunks of a step first, then the one file that says what is committed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import xarray as xr
import zarr

from throughtime._errors import StoreError
from throughtime._store.layout import (
    COMMIT,
    STEP,
    VERSION,
    Attributes,
    committed,
    empty_document,
    new_array,
    new_labels,
    parents,
    plain_attributes,
    replace_file,
    variables_of,
    write_step,
)
from throughtime._store.open_run import open_run

_LOCK = ".writer.lock"


class Run:
    """Writes one run. A second writer on the same path is refused; an existing run is continued.

    Parameters
    ----------
    path : path-like
        A folder, `run.zarr`. Made where it does not exist.
    attributes : mapping, optional
        Of the whole run: what a reader needs to know of model, data and versions. Of a run that is continued
        those it began with stay.
    durable : bool
        Wait at each step until the commit is on the disk itself. A killed process loses no committed step
        either way; a power cut may.

    Attributes
    ----------
    steps : list of int
        Training steps that are committed.

    Raises
    ------
    StoreError
        The path is a file, holds something else, is of a newer version, or has a writer.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, attributes: Attributes | None = None, durable: bool = False
    ) -> None:
        self.path = Path(path)
        self._durable = durable
        self._arrays: dict[str, Any] = {}
        self.steps: list[int] = []
        _finish_thinning(self.path)
        existing = self._existing()
        self._lock = _locked(self.path)
        self._document = existing or empty_document({**(attributes or {}), "throughtime_run": VERSION})
        if existing is None:
            self._commit(0)
        else:
            self._roll_back()

    @property
    def attributes(self) -> dict[str, Any]:
        """What is known of the whole run."""
        return dict(self._document["attributes"])

    @property
    def nbytes(self) -> int:
        """Bytes of the committed arrays before compression."""
        return sum(int(np.prod(array.shape)) * array.dtype.itemsize for array in self._arrays.values())

    def append(self, tree: xr.DataTree, step: int) -> None:
        """Commit one capture; when this raises, the run is as it was.

        Parameters
        ----------
        tree : DataTree
            As `capture` returns it: the same variables, dims and dtypes at every step. Where a size has
            grown, earlier steps read as NaN there, or as 0.
        step : int
            Training step, larger than all before.

        Raises
        ------
        StoreError
            The tree is not laid out like the steps before, or the step is not a later one.
        """
        variables = self.check(tree, step)
        try:
            if not self._arrays:
                self._create(tree, variables)
            count = len(self.steps)
            write_step(self._arrays[STEP], count, np.asarray(step, np.int64))
            for key, variable in variables.items():
                write_step(self._arrays[key], count, np.asarray(variable.values))
            self._commit(count + 1)
            self.steps.append(step)
        except BaseException:
            self._roll_back()
            raise

    def annotate(self, attributes: Attributes) -> None:
        """Add to what is known of the whole run, in one commit."""
        self._document["attributes"].update(plain_attributes(attributes))
        self._commit(len(self.steps))

    def thinned(self) -> Run:
        """Keep every second step, from the first on, and go on with that; this object is closed.

        The smaller run is written beside and takes the place of this one when it is whole. What others have
        opened lazily before has to be opened again.

        Returns
        -------
        Run
        """
        beside, replaced = _beside(self.path, "thinning"), _beside(self.path, "full")
        shutil.rmtree(beside, ignore_errors=True)
        attributes = {name: value for name, value in self.attributes.items() if name != "n_steps"}
        with Run(beside, attributes=attributes) as smaller:
            leaves = {leaf.path: leaf.to_dataset() for leaf in open_run(self.path).leaves}
            for place in range(0, len(self.steps), 2):
                one = {path: leaf.isel(step=place).drop_vars(STEP).load() for path, leaf in leaves.items()}
                smaller.append(xr.DataTree.from_dict(one), self.steps[place])
        self.close()
        self.path.rename(replaced)
        beside.rename(self.path)
        shutil.rmtree(replaced)
        return Run(self.path, durable=self._durable)

    def close(self) -> None:
        """Let another writer have the run."""
        self._lock.release()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _existing(self) -> dict[str, Any] | None:
        if self.path.is_file():
            raise StoreError(f"{self.path} is a file; a run is a folder. Give another path.")
        file = self.path / COMMIT
        if not file.exists():
            if self.path.is_dir() and any(each.name != _LOCK for each in self.path.iterdir()):
                raise StoreError(f"{self.path} holds other files. A run needs a folder of its own.")
            return None
        return committed(file)

    def check(self, tree: xr.DataTree, step: int) -> dict[str, xr.Variable]:
        """Refuse what `append` would refuse.

        Returns
        -------
        dict of str to Variable
            What `append` would write, by the keys of the store.

        Raises
        ------
        StoreError
        """
        variables = dict(variables_of(tree))
        if self.steps and step <= self.steps[-1]:
            raise StoreError(f"Step {step} does not come after {self.steps[-1]}, the last of {self.path}.")
        known = set(self._arrays) - {STEP} - set(self._labels())
        if known and known != set(variables):
            differing = ", ".join(sorted(known ^ set(variables)))
            raise StoreError(f"{self.path} holds other variables than step {step}: {differing}.")
        for key, variable in variables.items():
            if key not in self._arrays:
                continue
            held = self._arrays[key]
            dims, dtype = (STEP, *variable.dims), variable.dtype
            if (held.metadata.dimension_names, held.dtype) != (dims, dtype):
                raise StoreError(
                    f"{key} of step {step} is {dtype} {dims}, in {self.path} it is {held.dtype} "
                    f"{held.metadata.dimension_names}."
                )
        return variables

    def _labels(self) -> list[str]:
        """Coordinates, which are written once."""
        return [key for key, array in self._arrays.items() if array.metadata.dimension_names[0] != STEP]

    def _group(self) -> Any:
        return zarr.open_group(str(self.path), mode="r+", use_consolidated=False)

    def _create(self, tree: xr.DataTree, variables: Mapping[str, xr.Variable]) -> None:
        """Make groups and empty arrays, and write labels."""
        self._document["attributes"].update(plain_attributes(tree.attrs))
        group = self._group()
        self._arrays[STEP] = new_array(group, STEP, xr.Variable((), np.int64(0)))
        for node in tree.subtree:
            if node is not tree:
                group.require_group(node.path[1:]).attrs.put(plain_attributes(node.attrs))
            for name, coordinate in node.to_dataset(inherit=False).coords.items():
                key = f"{node.path}/{name}"[1:].lstrip("/")
                self._arrays[key] = new_labels(group, key, coordinate.variable)
        for key, variable in variables.items():
            self._arrays[key] = new_array(group, key, variable)

    def _commit(self, count: int) -> None:
        """Make everything that was written visible, at once."""
        self._document["attributes"]["n_steps"] = count
        metadata = self._document["consolidated_metadata"]["metadata"]
        for key, array in self._arrays.items():
            for parent in parents(key):
                if parent not in metadata:
                    metadata[parent] = json.loads((self.path / parent / COMMIT).read_text("utf-8"))
            if key not in metadata:
                metadata[key] = json.loads((self.path / key / COMMIT).read_text("utf-8"))
            metadata[key]["shape"] = list(array.shape)
        # zarr nests what it reads by runs of neighbours: what lies in one group has to stand together.
        ordered = sorted(metadata.items(), key=lambda item: (item[0].count("/"), item[0]))
        self._document["consolidated_metadata"]["metadata"] = dict(ordered)
        replace_file(self.path / COMMIT, json.dumps(self._document), durable=self._durable)

    def _roll_back(self) -> None:
        """Cut every array back to what is committed."""
        self._document = committed(self.path / COMMIT)
        metadata = self._document["consolidated_metadata"]["metadata"]
        group, self._arrays = self._group(), {}
        for key, known in metadata.items():
            if known["node_type"] == "array":
                self._arrays[key] = array = group[key]
                if array.shape != tuple(known["shape"]):
                    array.resize(tuple(known["shape"]))
        self.steps = [int(step) for step in self._arrays[STEP][:]] if STEP in self._arrays else []


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f"{path.name}.{what}")


def _finish_thinning(path: Path) -> None:
    """Undo a thinning that was interrupted between its two moves, or clear up after one that was whole."""
    replaced = _beside(path, "full")
    if replaced.exists() and path.exists():
        shutil.rmtree(replaced)
    elif replaced.exists():
        replaced.rename(path)


def _locked(path: Path) -> filelock.BaseFileLock:
    path.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path / _LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise StoreError(
            f"{path} has a writer already: another process or monitor is recording it."
        ) from None
    return lock
