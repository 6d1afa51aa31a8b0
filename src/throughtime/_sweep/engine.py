"""Submits the tasks of a sweep to an executor, tries those that fail again, and has their parts merged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from throughtime import __version__
from throughtime._errors import SweepError

from .files import merged_file, part_file
from .job import Job, check_version
from .task import do_task, merge, run_task

RETRIES = 1


class Future(Protocol):
    """The result of `submit`."""

    def result(self) -> Any:
        """Wait for the result."""


class Executor(Protocol):
    """An executor of concurrent.futures, loky, dask or submitit: it runs functions elsewhere."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future:
        """Have a function called."""


@dataclass(frozen=True)
class Failure:
    """A task that failed each time it was tried."""

    checkpoint: str
    shard: int
    error: str


@dataclass(frozen=True)
class _Done:
    error: Exception | None = None

    def result(self) -> None:
        if self.error is not None:
            raise self.error


class Serial:
    """Runs tasks one after another, here."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future:
        try:
            if function is run_task:
                do_task(self._job, *arguments)
            else:
                function(*arguments)
        except Exception as error:
            return _Done(error)
        return _Done()


def run(job: Job, folder: Path, executor: Executor | None, advance: Callable[[], None]) -> list[Failure]:
    """Do all tasks whose parts are not on disk, and merge the parts of each checkpoint.

    Raises
    ------
    SweepError
        The workers have no throughtime or another version, or the executor breaks.
    """
    if executor is None:
        with job.restoring():
            return list(_run(job, folder, Serial(job), advance))
    job.write(folder)
    _check_workers(executor)
    return list(_run(job, folder, executor, advance))


def _check_workers(executor: Executor) -> None:
    context = getattr(executor, "_mp_context", None)  # of concurrent.futures' pools
    if context is not None and context.get_start_method() == "fork":
        raise SweepError(
            "A forked process stops for ever in libraries that have threads. Pass ProcessPoolExecutor(…, "
            'mp_context=multiprocessing.get_context("spawn")).'
        )
    try:
        executor.submit(check_version, __version__).result()
    except ImportError as error:
        raise SweepError(f"The workers cannot import throughtime: {error}. Install it there.") from error
    except BrokenExecutor as error:
        raise SweepError(f"The executor is broken: {error}. Pass a new one.") from error


def _run(job: Job, folder: Path, executor: Executor, advance: Callable[[], None]) -> Iterator[Failure]:
    shards = range(len(job.loads))
    tasks = [
        (checkpoint, [shard for shard in shards if not part_file(folder, checkpoint, shard).exists()])
        for checkpoint in range(len(job.checkpoints))
        if not merged_file(folder, checkpoint).exists()
    ]
    # A serial executor works within `submit`: futures of one checkpoint at a time.
    is_serial = isinstance(executor, Serial)
    ahead = {} if is_serial else {each: _submitted(executor, folder, *each) for each in tasks_of(tasks)}
    merges = []
    for checkpoint, missing in tasks:
        for shard in missing:
            future = ahead.pop((checkpoint, shard), None) or _submitted(executor, folder, checkpoint, shard)
            error = _waited(future, partial(_submitted, executor, folder, checkpoint, shard))
            if error is not None:
                yield Failure(job.checkpoints[checkpoint][0], shard, f"{type(error).__name__}: {error}")
            advance()
        merges.append(executor.submit(merge, folder, checkpoint, len(shards)))
    for future in merges:
        future.result()


def tasks_of(tasks: list[tuple[int, list[int]]]) -> Iterator[tuple[int, int]]:
    """Yield checkpoint and shard of each task."""
    return ((checkpoint, shard) for checkpoint, missing in tasks for shard in missing)


def _submitted(executor: Executor, folder: Path, checkpoint: int, shard: int) -> Future:
    return executor.submit(run_task, folder, checkpoint, shard)


def _waited(future: Future, again: Callable[[], Future]) -> Exception | None:
    """Wait for a task, and try it again if it fails; return the last error."""
    error: Exception | None = None
    for _ in range(1 + RETRIES):
        try:
            future.result()
            return None
        except (BrokenExecutor, CancelledError) as broken:
            raise SweepError(
                f"The executor broke: {str(broken) or type(broken).__name__}. Finished tasks are on disk: "
                "sweep again with a new executor for the rest."
            ) from broken
        except Exception as raised:  # the user's model and data may raise anything
            error, future = raised, again() if error is None else future
    return error
