"""Work on many rows, shared among the cores, and small products on one core.

The threads of BLAS spin while they wait for each other: on a busy machine a product on two of them takes up
to three times as long as on one. Therefore BLAS gets one thread, and rows go to a pool that sleeps while it
waits.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from threading import RLock
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

WORTH_A_THREAD = 2**24  # operations, a millisecond or two
MOST_THREADS = 8
PATIENCE = 1.0  # seconds


def over_rows(task: Callable[[slice], object], rows: int, operations: int) -> None:
    """Run a task on shares of the rows, which must not depend on each other.

    Its exceptions are raised here. `operations` counts those of all rows; a small amount stays on this
    thread.
    """
    count = max(1, min(_cores(), MOST_THREADS, rows, operations // WORTH_A_THREAD))
    bounds = [rows * place // count for place in range(count + 1)]
    first, *others = map(slice, bounds, bounds[1:])
    settings = np.geterr()  # of this thread: what to do about overflow

    def alike(share: slice) -> None:
        with np.errstate(**settings):
            task(share)

    with one_thread():
        running = [_pool().submit(alike, share) for share in others]
        task(first)
        for one in running:
            one.result()


class _OneThread:
    """Limits BLAS to one thread as long as any thread, such as that of a monitor, requests it.

    An interrupt may come before a lock is released. Therefore its thread may acquire it again, and others
    wait only briefly and then compute without the limit.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._users = 0
        self._limited: Any = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        is_counted = self._changed(1)
        try:
            yield
        finally:
            if is_counted:
                self._changed(-1)

    def _changed(self, by: int) -> bool:
        """Count requests; limit for the first, remove the limit after the last; False without the lock."""
        if not self._lock.acquire(timeout=PATIENCE):
            return False
        try:
            if not self._users:
                self._limited = _controller().limit(limits=1, user_api="blas")
            self._users += by
            if not self._users:
                self._limited.restore_original_limits()
        finally:
            self._lock.release()
        return True


_limit = _OneThread()


def one_thread() -> AbstractContextManager[None]:
    """Keep the small products of a scan on one thread: they cost less than waking a pool."""
    return _limit()


@cache
def _controller() -> ThreadpoolController:
    # Finding the loaded BLAS takes milliseconds, limiting it microseconds.
    return ThreadpoolController()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(MOST_THREADS - 1, thread_name_prefix="throughtime")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _begin_anew() -> None:
    global _limit  # noqa: PLW0603
    _pool.cache_clear()
    _limit = _OneThread()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
