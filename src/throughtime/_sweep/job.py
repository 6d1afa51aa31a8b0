"""`Job`: the settings that the tasks of one sweep share, and how a process gets its model."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle

from throughtime import __version__
from throughtime._capture.probe import Probe
from throughtime._errors import SweepError
from throughtime.adapters import choose

from .files import JOB, replaced
from .shards import Load

SEED = 0
LEVELS: tuple[str, ...] = ("summary", "timestep")


@dataclass
class Job:
    """Everything that a task needs.

    Attributes
    ----------
    model : model, or a function without arguments that makes one
    loss, layers : see `capture`
    checkpoints : list of (name, weights)
        Weights are a path, weights as the framework has them, or None: those that the model has.
    loads : tuple of callable
        Functions that load a shard each.
    lag : int or None
        Lag at which use is measured; None measures no use.
    level : str
        One of `LEVELS`.
    """

    model: Any
    loss: Any
    layers: Any
    checkpoints: list[tuple[str, Any]]
    loads: tuple[Load, ...]
    lag: int | None = None
    level: str = "summary"
    _at: int | None = field(default=None, init=False)
    _made: Any = field(default=None, init=False)
    _probed: Any = field(
        default=None, init=False
    )  # the model of the probe: some weights are a model themselves
    _probe: Probe | None = field(default=None, init=False)

    def probe(self, checkpoint: int) -> Probe:
        """Return the probe of the model with a checkpoint's weights; kept until another one is asked for."""
        if self._made is None:
            self._made = self.model() if makes_model(self.model) else self.model
        if self._at != checkpoint or self._probe is None:
            source = self.checkpoints[checkpoint][1]
            model = self._made if source is None else choose(self._made).load_weights(self._made, source)
            if self._probe is None or model is not self._probed:
                self._probe, self._probed = Probe(model, loss=self.loss, layers=self.layers), model
            self._at = checkpoint
        return self._probe

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """Give the caller's model its weights back."""
        if makes_model(self.model) or all(source is None for _, source in self.checkpoints):
            yield
            return
        adapter = choose(self.model)
        before = adapter.weights_of(self.model)
        try:
            yield
        finally:
            adapter.load_weights(self.model, before)

    def write(self, folder: Path) -> None:
        """Write the job for other processes.

        Raises
        ------
        SweepError
            The model, the loss or a function that loads a shard cannot be pickled.
        """
        try:
            content = cloudpickle.dumps(self)
        except Exception as error:  # a model's parts may raise anything
            raise SweepError(
                f"The model, the loss or a shard cannot be sent to other processes: {error}. Pass a function "
                "that makes the model, model=make_model, and functions that load the shards."
            ) from error
        replaced(folder / JOB, lambda file: file.write(content))


_jobs: dict[tuple[str, int], Job] = {}  # of this process: the last one


def job_at(folder: Path) -> Job:
    """Return the job of a sweep's folder, read once by each process."""
    path = folder / JOB
    key = (os.fspath(path), path.stat().st_mtime_ns)
    if key not in _jobs:
        _jobs.clear()
        with path.open("rb") as file:
            _jobs[key] = cloudpickle.load(file)
    return _jobs[key]


def makes_model(value: Any) -> bool:
    """Whether a value is a function that needs no arguments: it makes the model."""
    if not isinstance(value, (type(makes_model), partial)) and not inspect.ismethod(value):
        return False
    call: Callable[..., Any] = value
    needed = (
        each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
        for each in inspect.signature(call).parameters.values()
    )
    return not any(needed)


def check_version(version: str) -> None:
    """Refuse to work with another version of throughtime than the caller's.

    Raises
    ------
    SweepError
        The versions differ.
    """
    if version != __version__:
        raise SweepError(
            f"A worker has throughtime {__version__}, the caller {version}. Install one version."
        )
