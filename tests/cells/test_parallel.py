"""Work in shares is the same work: whatever the number of cores, after a fork, and where a share raises."""

import multiprocessing
import sys

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from throughtime.cells import parallel

ROWS, WIDTH = 37, 5


def shares_of(rows, operations, monkeypatch, cores):
    monkeypatch.setattr(parallel, "_cores", lambda: cores)
    seen = []
    parallel.over_rows(seen.append, rows, operations)
    return sorted((share.start, share.stop) for share in seen)


@pytest.mark.parametrize("cores", [1, 2, 5, 64])
def test_shares_cover_every_row_once(cores, monkeypatch):
    shares = shares_of(ROWS, 10**9, monkeypatch, cores)
    assert len(shares) == min(cores, parallel.MOST_THREADS)
    assert [row for start, stop in shares for row in range(start, stop)] == list(range(ROWS))


def test_few_rows_and_little_work_are_not_shared_further(monkeypatch):
    assert shares_of(3, 10**9, monkeypatch, cores=8) == [(0, 1), (1, 2), (2, 3)]
    assert shares_of(ROWS, parallel.WORTH_A_THREAD - 1, monkeypatch, cores=8) == [(0, ROWS)]


def test_what_a_share_raises_is_raised(monkeypatch):
    monkeypatch.setattr(parallel, "_cores", lambda: 4)

    def task(share):
        if share.start > 0:
            raise ValueError(share.start)

    with pytest.raises(ValueError, match="9"):
        parallel.over_rows(task, ROWS, 10**9)


def test_shares_treat_overflow_as_their_caller_does(monkeypatch):
    monkeypatch.setattr(parallel, "_cores", lambda: 4)
    seen = []
    with np.errstate(over="raise", under="ignore"):
        parallel.over_rows(lambda share: seen.append(np.geterr()), ROWS, 10**9)
        here = np.geterr()
    assert seen == [here] * 4


def _blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_blas_has_its_threads_back_when_the_last_of_several_users_is_done():
    before = _blas_threads()
    first, second = parallel.one_thread(), parallel.one_thread()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)  # not in the order of a stack, as two threads do
    assert set(_blas_threads()) == {1}
    second.__exit__(None, None, None)
    assert _blas_threads() == before


def _in_child(queue):
    total = np.zeros(4)
    parallel.over_rows(lambda share: np.add(total[share], 1, out=total[share]), 4, 10**9)
    queue.put(total.tolist())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
@pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*fork:DeprecationWarning", "ignore:os.fork:RuntimeWarning"
)
def test_a_forked_process_has_threads_of_its_own(monkeypatch):
    monkeypatch.setattr(parallel, "_cores", lambda: 4)
    parallel.over_rows(lambda share: None, 4, 10**9)  # the parent's pool has threads
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(queue,))
    child.start()
    try:
        assert queue.get(timeout=300) == [1.0] * 4
    finally:
        child.kill()
        child.join()
