"""Submits the tasks of a sweep to an executor, and tries those that fail again."""

from collections.abc import Callable
from concurrent import futures
from concurrent.futures import BrokenExecutor, CancelledError
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from throughtime import __version__
from throughtime._errors import SweepError
from throughtime._monitor.part import Part

from .parts import PARTS, Parts
from .task import Job, check_version, do_task, run_task

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


class Serial:
    """Runs tasks one after another, here."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def submit(self, _: Callable[..., Any], /, *arguments: Any) -> Future:
        future: futures.Future[None] = futures.Future()
        try:
            do_task(self._job, *arguments)
            future.set_result(None)
        except Exception as error:  # the user's model and data may raise anything
            future.set_exception(error)
        return future


def run(
    job: Job,
    folder: Path,
    executor: Executor | None,
    advance: Callable[[], None],
    add: Callable[[str, int, Part], None],
) -> list[Failure]:
    """Do all tasks whose parts are not on disk.

    `advance` is called after each task; `add` with name, number and the sum of the parts of each checkpoint,
    while the tasks of later ones run.
    """
    if executor is not None:
        job.write(folder)
        _check_workers(executor)
    submit = partial((executor or Serial(job)).submit, run_task, folder)
    names = {each.name for each in (folder / PARTS).glob("*")}
    all_parts = [Parts(folder, place, len(job.loads)) for place in range(len(job.checkpoints))]
    missing = [parts.missing(names) for parts in all_parts]
    # A serial executor works within `submit`: one task at a time.
    tasks = enumerate(missing if executor is not None else [])
    ahead = {(place, shard): submit(place, shard) for place, shards in tasks for shard in shards}
    failures = []
    with job.restoring() if executor is None else nullcontext():
        for place, (name, _) in enumerate(job.checkpoints):
            for shard in missing[place]:
                again = partial(submit, place, shard)
                error = _waited(ahead.pop((place, shard)) if ahead else again(), again)
                if error is not None:
                    failures.append(Failure(name, shard, f"{type(error).__name__}: {error}"))
                advance()
            if (part := all_parts[place].total()) is not None:
                add(name, place, part)
    return failures


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
