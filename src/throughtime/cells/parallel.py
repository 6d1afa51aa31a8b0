"""Work over many rows, shared among the cores; and small products, kept on one.

BLAS has threads of its own, which spin while they wait for each other: on a machine that does something else
as well, a product on two of them takes up to three times as long as on one. So BLAS gets one thread, and rows
are handed to a pool that sleeps while it waits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from threading import Lock

import numpy as np
from threadpoolctl import ThreadpoolController

from .layer import Floats

WORTH_A_THREAD = 2**22  # operations, some tenths of a millisecond
MOST_THREADS = 8


def over_rows(task: Callable[[slice], object], rows: int, operations: int) -> None:
    """Run a task on shares of the rows, which must not depend on each other.

    Parameters
    ----------
    task : callable (slice)
        What it raises is raised here.
    rows : int
    operations : int
        On all rows together: a small amount stays on this thread.
    """
    count = max(1, min(_cores(), MOST_THREADS, rows, operations // WORTH_A_THREAD))
    bounds = np.linspace(0, rows, count + 1).astype(int).tolist()
    first, *others = map(slice, bounds, bounds[1:])
    with one_thread():
        running = [_pool().submit(task, share) for share in others]
        task(first)
        for one in running:
            one.result()


def product(left: Floats, right: Floats, out: Floats) -> None:
    """Write the matrix product left · right into `out`."""
    over_rows(lambda run: np.dot(left[run], right, out=out[run]), len(left), left.size * right.shape[1])


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep the small products of a scan on one thread: waking a pool costs more than they do."""
    _LIMIT.take()
    try:
        yield
    finally:
        _LIMIT.give_back()


class _Limit:
    """One thread for BLAS while anybody asks for it: the limit is the process's, and captures may overlap."""

    def __init__(self) -> None:
        self._lock, self._users, self._limited = Lock(), 0, ExitStack()

    def take(self) -> None:
        with self._lock:
            if not self._users:
                self._limited.enter_context(_controller().limit(limits=1, user_api="blas"))
            self._users += 1

    def give_back(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._limited.close()


_LIMIT = _Limit()


@cache
def _controller() -> ThreadpoolController:
    # Looking up the loaded BLAS costs milliseconds, limiting it microseconds.
    return ThreadpoolController()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(MOST_THREADS - 1, thread_name_prefix="throughtime")


def _cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# A forked process has none of the pool's threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
