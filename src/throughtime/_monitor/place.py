"""Where a monitor's run goes: a run that is there is continued, replaced, or left beside a new one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from throughtime._errors import MonitorError, StoreError
from throughtime._store import Run, remove_run

from .arrays import Array
from .provenance import check_continues

MODES = ("auto", "new", "continue", "overwrite")
WEIGHTS = "weights_fingerprint"  # a variable of the run's root
_CHOICES = (
    'Choose with mode=: "continue" records into it all the same, "overwrite" replaces it, "new" records into '
    "a dated folder beside it."
)


class Place:
    """The folder of a monitor's run, found once: a later change of the working directory does not move it.

    Parameters
    ----------
    store : path-like
    mode : str
        One of `MODES`.

    Attributes
    ----------
    path : Path
        With "new" the dated folder.

    Raises
    ------
    MonitorError
        The path is none, or there is no such mode.
    """

    def __init__(self, store: Any, mode: Any) -> None:
        if not isinstance(mode, str) or mode not in MODES:
            raise MonitorError(f"mode={mode!r} is none of {', '.join(MODES)}.")
        named = os.fspath(store) if isinstance(store, (str, os.PathLike)) else None
        if not isinstance(named, str) or not named:
            raise MonitorError(f"A monitor records into a folder, such as 'run.zarr', not {store!r}.")
        self._store, self._mode, self._is_own = Path(named).absolute(), mode, False
        self.path = dated(self._store, datetime.now()) if mode == "new" else self._store

    def open(self, attributes: Mapping[str, Any], now: Mapping[str, Array]) -> Run:
        """Open the run that training begins or goes on with.

        A monitor whose run ends with the model's weights goes on with it, whatever the mode.

        Parameters
        ----------
        attributes : mapping
            What the run is to know of itself.
        now : mapping of str to Array
            The first record by its keys: fingerprint and norms of the model's weights.

        Raises
        ------
        StoreError
            The run there is of another model or batch or, with "auto", ends with other weights.
        """
        run = self._own(attributes, now) or self._opened(attributes, now)
        self._is_own = True
        return run

    def _own(self, attributes: Mapping[str, Any], now: Mapping[str, Array]) -> Run | None:
        if self._is_own and self._mode in ("new", "overwrite"):
            with suppress(StoreError):
                return _checked(Run(self.path), "auto", attributes, now)
        return None

    def _opened(self, attributes: Mapping[str, Any], now: Mapping[str, Array]) -> Run:
        if self._mode == "new":
            self._take_free_folder()
        elif self._mode == "overwrite":
            remove_run(self.path)
        return _checked(Run(self.path, attributes=attributes), self._mode, attributes, now)

    def _take_free_folder(self) -> None:
        """Make a folder that nobody has: of processes that start together each gets its own."""
        while True:
            try:
                self.path.mkdir(parents=True)
            except FileExistsError:
                self.path = dated(self._store, datetime.now())
            except OSError as error:
                raise StoreError(f"{self.path} cannot be written: {error}. Give another path.") from error
            else:
                return


def dated(path: Path, now: datetime) -> Path:
    """Name a folder beside another by date and time: the first name that is free.

    Examples
    --------
    >>> dated(Path("runs/run.zarr"), datetime(2026, 11, 28, 7, 15)).as_posix()
    'runs/run-20261128-0715.zarr'
    """
    stem, number = f"{path.stem}-{now:%Y%m%d-%H%M}", 1
    while (found := path.with_name(f"{stem}{f'-{number}' if number > 1 else ''}{path.suffix}")).exists():
        number += 1
    return found


def _checked(run: Run, mode: str, attributes: Mapping[str, Any], now: Mapping[str, Array]) -> Run:
    """Give back a run that can be continued; close one that cannot."""
    try:
        check_continues(run.path, run.attributes, attributes)
        if mode == "auto" and run.steps:
            _check_weights(run, now)
    except BaseException:
        run.close()
        raise
    return run


def _check_weights(run: Run, now: Mapping[str, Array]) -> None:
    """Refuse to continue a run that does not end with the weights the model has."""
    known, step = run.last(WEIGHTS), run.steps[-1]
    if known is not None and known != 0 and known == now[WEIGHTS].values:
        return
    if known is None or known == 0:
        why = f"no fingerprint of the weights at step {step}, its last record"
    else:
        why = f"a training that ended at step {step} with other weights than this model's{_norm(run, now)}"
    raise StoreError(f"{run.path} holds {why}. {_CHOICES}")


def _norm(run: Run, now: Mapping[str, Array]) -> str:
    """Put the first norm that differs in words: it shows how far apart two models are."""
    for key, array in now.items():
        if key.endswith("kernel_norm") and (before := run.last(key)) is not None:
            norms = [f"{np.linalg.norm(values):.4g}" for values in (before, array.values)]
            if norms[0] != norms[1]:
                layer, _, name = key.rpartition("/")
                weight = f"{name.removesuffix('_norm').replace('_', ' ')} of {layer}"
                return f" (norm of the {weight}: {norms[0]} there, {norms[1]} here)"
    return ""
