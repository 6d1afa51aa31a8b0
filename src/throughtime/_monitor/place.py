"""The folder of a monitor's run, which is new, continued or replaced; and the page that follows the run."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from throughtime._capture.label import NamedArray
from throughtime._errors import StoreError
from throughtime._store import Run, remove_run

from .provenance import check_continues

if TYPE_CHECKING:
    from throughtime._pages.live import Server


MODES = ("auto", "new", "continue", "overwrite")
WEIGHTS = "weights_fingerprint"  # a variable of the run's root
_CHOICES = (
    'Choose with mode=: "continue" records into this run anyway, "overwrite" replaces it, "new" records into '
    "a dated folder beside it."
)


class Place:
    """The folder of a monitor's run, `path`. A later change of the working directory does not move it."""

    def __init__(self, store: str | os.PathLike[str], mode: str) -> None:
        self._store, self._mode, self._is_own = Path(store).absolute(), mode, False
        self.path = dated_path(self._store, datetime.now()) if mode == "new" else self._store

    def open(self, attributes: Mapping[str, Any], now: Mapping[str, NamedArray]) -> Run:
        """Open the run into which training is recorded, a new one or an existing one.

        A monitor continues its run in every mode if the run ends with the model's weights, whose fingerprint
        and norms are in `now`. A run of another model or batch raises StoreError.
        """
        run = self._continue_own(attributes, now) or self._open(attributes, now)
        self._is_own = True
        return run

    def _continue_own(self, attributes: Mapping[str, Any], now: Mapping[str, NamedArray]) -> Run | None:
        if self._is_own and self._mode in ("new", "overwrite"):
            with suppress(StoreError):
                return _check(Run(self.path), "auto", attributes, now)
        return None

    def _open(self, attributes: Mapping[str, Any], now: Mapping[str, NamedArray]) -> Run:
        if self._mode == "new":
            self._take_free_folder()
        elif self._mode == "overwrite":
            remove_run(self.path)
        return _check(Run(self.path, attributes=attributes), self._mode, attributes, now)

    def _take_free_folder(self) -> None:
        """Create a new folder, so that processes that start together get different folders."""
        while True:
            try:
                self.path.mkdir(parents=True)
            except FileExistsError:
                self.path = dated_path(self._store, datetime.now())
            except OSError as error:
                raise StoreError(f"{self.path} cannot be written: {error}. Pass another path.") from error
            else:
                return


def dated_path(path: Path, now: datetime) -> Path:
    """Return the first free name, made of date and time, for a folder beside another one.

    >>> dated_path(Path("runs/run.zarr"), datetime(2026, 11, 28, 7, 15)).as_posix()
    'runs/run-20261128-0715.zarr'
    """
    stem, number = f"{path.stem}-{now:%Y%m%d-%H%M}", 1
    while (found := path.with_name(f"{stem}{f'-{number}' if number > 1 else ''}{path.suffix}")).exists():
        number += 1
    return found


def _check(run: Run, mode: str, attributes: Mapping[str, Any], now: Mapping[str, NamedArray]) -> Run:
    """Return a run that can be continued; otherwise close it and raise the error."""
    try:
        check_continues(run.path, run.attributes, attributes)
        if mode == "auto" and run.steps:
            _check_weights(run, now)
    except BaseException:
        run.close()
        raise
    return run


def _check_weights(run: Run, now: Mapping[str, NamedArray]) -> None:
    """Refuse to continue a run that ends with other weights than the model's."""
    known, step = run.last(WEIGHTS), run.steps[-1]
    if known is not None and known != 0 and known == now[WEIGHTS].values:
        return
    if known is None or known == 0:
        why = f"no fingerprint of the weights at step {step}, its last record"
    else:
        why = f"a training that ended at step {step} with other weights than this model's{_norm(run, now)}"
    raise StoreError(f"{run.path} holds {why}. {_CHOICES}")


def _norm(run: Run, now: Mapping[str, NamedArray]) -> str:
    """Return a text with the first norm that differs, which shows how far apart two models are."""
    for key, array in now.items():
        if key.endswith("kernel_norm") and (before := run.last(key)) is not None:
            norms = [f"{np.linalg.norm(values):.4g}" for values in (before, array.values)]
            if norms[0] != norms[1]:
                layer, _, name = key.rpartition("/")
                weight = f"{name.removesuffix('_norm').replace('_', ' ')} of {layer}"
                return f" (norm of the {weight}: {norms[0]} there, {norms[1]} here)"
    return ""


class ServedPage:
    """Serves the page of one run, which need not exist yet, from this process."""

    def __init__(self, place: Place) -> None:
        self._place, self._shown = place, place.path
        self._server: Server | None = None

    @property
    def url(self) -> str:
        """Address of the page; reading it starts the server."""
        if self._shown != self._place.path:  # another process took the folder first
            self.close()
        if self._server is None:
            from throughtime._pages.live import Server  # noqa: PLC0415 - imports drawing libraries

            self._shown = self._place.path
            self._server = Server(self._shown)
            weakref.finalize(self, self._server.close)
        return self._server.url

    def close(self) -> None:
        """Stop the server."""
        if self._server is not None:
            self._server.close()
            self._server = None
