"""Writes a run: the chunks of a step first, then the one file that records what is committed."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import xarray as xr
import zarr

from throughtime._common.atomic import put
from throughtime._errors import StoreError
from throughtime._store import layout
from throughtime._store.checksums import Sums
from throughtime._store.codecs import DamageError
from throughtime._store.files import Folder
from throughtime._store.lock import Lock
from throughtime._store.rewriting import finish_thinning, write_thinned
from throughtime._store.schema import COMMIT, STEP, SUMS, VERSION, VERSION_KEY, folder_of
from throughtime._store.stored_array import StoredArray
from throughtime._store.validate import read_commit


class Labelled(Protocol):
    """Values with named axes, such as an `xarray.Variable`."""

    @property
    def dims(self) -> tuple[Any, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def values(self) -> Any: ...


class Run:
    """Writes one run into a folder, `run.zarr`. An existing run is continued, with its first attributes.

    `steps` are the committed training steps. A path that is a file, holds something else or a run of a newer
    version, has a writer, or cannot be written raises StoreError.
    """

    def __init__(self, path: str | os.PathLike[str], *, attributes: layout.Attributes | None = None) -> None:
        self.path = Path(path)
        self._arrays: dict[str, StoredArray] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}  # of labels
        self._commit_file: layout.Commit | None = None
        self.steps: list[int] = []
        self._read_existing()  # before a lock is created beside a folder that is not ours
        self._lock = Lock(self.path)
        try:
            finish_thinning(self.path)
            existing = self._read_existing()
            self._document = existing or layout.empty_document({**(attributes or {}), VERSION_KEY: VERSION})
            if existing is None:
                self.path.mkdir(exist_ok=True)
                self._inode = self.path.stat().st_ino
                self._commit(0)
            else:
                Folder(self.path).make_own()  # before anything is truncated
                self._roll_back()
        except BaseException as error:
            self._lock.release()
            if isinstance(error, OSError | DamageError) and not isinstance(error, StoreError):
                raise StoreError(f"{self.path} cannot be written: {error}. Pass another path.") from error
            raise

    @property
    def attributes(self) -> dict[str, Any]:
        return dict(self._document["attributes"])

    @property
    def nbytes(self) -> int:
        """Bytes of the committed arrays before compression."""
        return sum(array.nbytes for array in self._arrays.values())

    def append(self, tree: xr.DataTree, step: int) -> None:
        """Commit one capture with a larger step than all earlier ones; if this raises, the run is unchanged.

        A tree has the same variables, dims and dtypes at every step. If a size has grown, earlier steps have
        NaN, or 0, there. Variables of the root may start late or be omitted: a step without one has NaN.
        """
        arrays = dict(layout.variables_of(tree))
        try:
            if not self._arrays:
                self._create(tree, arrays)
        except BaseException:
            self._roll_back()
            raise
        self.append_arrays(arrays, step)

    def append_arrays(self, arrays: Mapping[str, Labelled], step: int) -> None:
        """Commit the arrays of one capture by their keys in the store; the first step needs `append`."""
        self._check_place()
        stored = {folder_of(path): each for path, each in arrays.items()}
        self.check(arrays, step)
        try:
            if not stored.keys() <= self._arrays.keys():
                self._add_late(
                    {path: each for path, each in arrays.items() if folder_of(path) not in self._arrays}
                )
            stored[STEP] = xr.Variable((), np.int64(step))
            rows = {
                key: np.asarray(stored[key].values)[None] if key in stored else array.missing(1)
                for key, array in self._arrays.items()
            }
            for key, row in rows.items():
                self._arrays[key].append(row)
            self._sums.append(self._arrays, rows)
            self._commit(len(self.steps) + 1)
            self.steps.append(step)
        except BaseException:
            self._roll_back()
            raise

    def last(self, key: str) -> Any:
        """Read a variable at the last committed step; None if it does not exist."""
        count, array = len(self.steps), self._arrays.get(folder_of(key))
        return array.read(count - 1, count)[0] if array is not None and count else None

    def annotate(self, attributes: layout.Attributes) -> None:
        """Add attributes of the whole run, in one commit."""
        self._document["attributes"].update(layout.plain_attributes(attributes))
        self._commit_file = layout.Commit(self._document)
        self._commit(len(self.steps))

    def thin(self) -> None:
        """Keep every second step, starting with the first.

        The smaller run is written beside this one and replaces it when it is complete. A run that was opened
        lazily before has to be opened again.
        """
        write_thinned(self.path, self._document, self._arrays, self._sums.array)
        self._roll_back()

    def close(self) -> None:
        """Release the run for another writer."""
        with suppress(OSError):  # on a full disk, the root's file already has everything that counts
            self._check_place()
            for array in self._arrays.values():
                array.write_shape()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_existing(self) -> dict[str, Any] | None:
        if self.path.is_file():
            raise StoreError(f"{self.path} is a file; a run is a folder. Pass another path.")
        file = self.path / COMMIT
        if not file.exists():
            if self.path.is_dir() and any(each.suffix != ".tmp" for each in self.path.iterdir()):
                raise StoreError(f"{self.path} holds other files. Pass an empty or a new folder.")
            return None
        found = read_commit(Folder(self.path), self.path)
        if not found.digest:
            raise StoreError(
                f"{file} was changed after it was written, so nothing is added to it. `throughtime check` "
                "lists the damage. Pass another path."
            )
        return found.document

    def check(self, arrays: Mapping[str, Labelled], step: int) -> None:
        """Raise StoreError if `append` would refuse these arrays."""
        arrays = {folder_of(path): each for path, each in arrays.items()}
        if self.steps and step <= self.steps[-1]:
            raise StoreError(f"Step {step} does not follow step {self.steps[-1]}, the last of {self.path}.")
        known, given = (
            {key for key in keys if not layout.is_optional(key)} for keys in (self._arrays, arrays)
        )
        if known and known != given:
            differing = ", ".join(sorted(known ^ given))
            raise StoreError(f"The variables of {self.path} differ from those of step {step}: {differing}.")
        for key in [key for key in self._arrays if key in arrays]:
            array, old = arrays[key], self._arrays[key]
            dims, dtype = (STEP, *array.dims), array.dtype
            if (old.dims, old.dtype) != (dims, dtype):
                raise StoreError(
                    f"{key} of step {step} is {dtype} {dims}, in {self.path} it is {old.dtype} {old.dims}."
                )

    def _check_place(self) -> None:
        """Refuse to write if the run's folder is gone: chunks alone would form a run of NaN."""
        try:
            is_there = self.path.stat().st_ino == self._inode
        except OSError:
            is_there = False
        if not is_there:
            raise StoreError(
                f"{self.path} was moved or removed while it was recorded. Earlier steps are where the folder "
                "is now; nothing is added to it."
            )

    def _create(self, tree: xr.DataTree, variables: Mapping[str, Labelled]) -> None:
        """Create groups and empty arrays, and write labels."""
        self._document["attributes"] |= {**layout.plain_attributes(tree.attrs), SUMS: []}
        metadata = layout.new_nodes(self.path, tree, {STEP: xr.Variable((), np.int64(0)), **variables})
        self._document["consolidated_metadata"]["metadata"] = metadata
        self._take_arrays()
        self._sums.begin(self._arrays)
        self._commit_file = layout.Commit(self._document)

    def _add_late(self, variables: Mapping[str, Labelled]) -> None:
        """Create arrays for variables that appear late; earlier steps have NaN there."""
        group = zarr.open_group(str(self.path), mode="r+", use_consolidated=False)
        late = {}
        for path, variable in variables.items():
            key = layout.new_array(group, path, xr.Variable(variable.dims, variable.values))
            metadata = layout.node_of(self.path, key)
            self._document["consolidated_metadata"]["metadata"][key] = metadata
            self._arrays[key] = late[key] = array = StoredArray(self.path / key, metadata)
            array.append(array.missing(len(self.steps)))
        self._sums.begin(late)
        self._commit_file = layout.Commit(self._document)

    def _take_arrays(self) -> None:
        """Load the arrays that are listed in the document."""
        metadata = self._document["consolidated_metadata"]["metadata"]
        known = {key: each for key, each in metadata.items() if each["node_type"] == "array"}
        growing = {key: each for key, each in known.items() if each["dimension_names"][:1] == [STEP]}
        self._arrays = {key: StoredArray(self.path / key, each) for key, each in growing.items()}
        self._shapes = {key: tuple(each["shape"]) for key, each in known.items() if key not in growing}
        attributes = self._document["attributes"]
        self._sums = Sums(self.path, attributes.setdefault(SUMS, []), attributes["n_steps"])
        self._commit_file = layout.Commit(self._document)

    def _commit(self, count: int) -> None:
        """Make everything that was written visible at once."""
        self._check_place()
        commit = self._commit_file or layout.Commit(self._document)
        shapes = {**self._shapes, **{key: array.shape for key, array in self._arrays.items()}}
        put(f"{self.path}/{COMMIT}", commit.content(count, shapes))

    def _roll_back(self) -> None:
        """Truncate every array to the committed steps."""
        self._document = read_commit(Folder(self.path), self.path).document
        self._inode = self.path.stat().st_ino
        self._take_arrays()
        for array in (*self._arrays.values(), self._sums.array):
            array.cut()
        count = self._arrays[STEP].shape[0] if STEP in self._arrays else 0
        self.steps = [int(step) for step in self._arrays[STEP].read(0, count)] if count else []
