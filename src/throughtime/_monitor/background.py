"""Work that does not need the model: done in a second thread while training continues, or at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

Job = Callable[..., Any]


class BackgroundWorker:
    """Runs jobs one after another, in the order of their arrival.

    Parameters
    ----------
    in_background : bool
        Run jobs in a separate thread, in which one runs while another waits. Otherwise run each at once.
    """

    def __init__(self, *, in_background: bool) -> None:
        # A pool completes its work before the interpreter exits.
        self._pool = ThreadPoolExecutor(1, "throughtime-monitor") if in_background else None
        self._under_way: deque[Future[Any]] = deque()

    def put(self, job: Job, *arguments: Any) -> None:
        """Submit a job; return when all earlier jobs are done, and raise the errors that they raised."""
        if self._pool is None:
            job(*arguments)
            return
        self._under_way.append(self._pool.submit(job, *arguments))
        self._wait(1)

    def drain(self) -> None:
        """Wait until all jobs are done."""
        self._wait(0)

    def close(self) -> None:
        """Wait until all jobs are done, and end the thread."""
        if self._pool is not None:
            self._pool.shutdown()

    def _wait(self, most: int) -> None:
        while len(self._under_way) > most:
            self._under_way.popleft().result()
