"""Kill workers of dask at random moments, and the scheduler once; each sweep ends as a serial one does.

`OMP_NUM_THREADS=1 python benchmarks/sweeps/kills.py [kills]`: 50 by default. Scheduler, workers, caller are
forked from this process, which has imported everything and started no thread: a new worker takes a second.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import torch
import xarray as xr
from torch import nn

import throughtime as tt
from throughtime._sweep.parts import GROUP
from throughtime.adapters import torch as _adapter  # noqa: F401

SHARDS, SAMPLES, CHECKPOINTS, WORKERS = 30, 24, 2, 2
BROKE, SECONDS = 3, 1.2  # exit code of a caller whose executor broke; mean time between two kills


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(2, 16, batch_first=True), nn.Linear(16, 1)

    def forward(self, x: Any) -> Any:
        return self.head(self.rnn(x)[0][:, -1])


def made(seed: int = 0) -> Reader:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    return Reader()


def shard(number: int) -> tuple[Any, Any]:
    x = np.random.default_rng(number).normal(size=(SAMPLES, 60, 2)).astype(np.float32)
    return torch.as_tensor(x), torch.as_tensor(x[:, -8, :1])


def swept(folder: Path, executor: Any) -> xr.DataTree:
    weights = {f"seed {seed}": made(seed).state_dict() for seed in range(CHECKPOINTS)}
    loads = [partial(shard, number) for number in range(SHARDS)]
    loss = nn.functional.mse_loss
    return tt.sweep(made, loads, checkpoints=weights, loss=loss, to=folder, executor=executor)


def forked(action: Callable[[], int | None]) -> int:
    """Call a function in a forked process, whose exit code it returns."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        code = action() or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def schedule(port: int) -> None:
    async def run() -> None:
        async with distributed.Scheduler(port=port, dashboard=False) as scheduler:
            await scheduler.finished()

    asyncio.run(run())


def work(address: str) -> None:
    async def run() -> None:
        async with distributed.Worker(address, nthreads=1, dashboard=False) as worker:
            await worker.finished()

    asyncio.run(run())


def call(address: str, folder: Path) -> int:
    with distributed.Client(address, timeout=60, set_as_default=False) as client:
        try:
            swept(folder, client.get_executor())
        except tt.SweepError as error:
            print(f"  the caller stops: {str(error)[:100]}")
            return BROKE
    return 0


class Cluster:
    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{port}"
        self.scheduler = forked(partial(schedule, port))
        self.workers = [forked(partial(work, self.address)) for _ in range(WORKERS)]

    def kill_worker(self) -> None:
        place = random.randrange(WORKERS)
        end(self.workers[place])
        self.workers[place] = forked(partial(work, self.address))

    def end(self) -> None:
        for pid in (self.scheduler, *self.workers):
            end(pid)


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def ended(pid: int) -> int | None:
    """Exit code of a process, if it has ended."""
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def committed(folder: Path) -> set[tuple[int, int]]:
    """Checkpoint and shard of all parts on disk, alone or added to others."""
    found = set()
    for path in [each for _ in range(2) for each in (folder / "parts").glob("[0-9]*.npz")]:
        checkpoint, level, place = map(int, path.stem.split("-"))  # a sum is there before its parts go
        shards = range(place * GROUP**level, min((place + 1) * GROUP**level, SHARDS))
        found |= {(checkpoint, shard) for shard in shards}
    return found


def one_sweep(folder: Path, kills: int, *, with_scheduler: bool) -> int:
    """Sweep until it is complete; return how many workers were killed."""
    cluster, done, seen = Cluster(), 0, set()
    caller = forked(partial(call, cluster.address, folder))
    while True:
        time.sleep(random.expovariate(1 / SECONDS))
        now = committed(folder)
        code = ended(caller)
        if code == 0:
            cluster.end()
            return done
        if code is not None and code != BROKE:
            raise SystemExit(f"The caller ended with {code}.")
        assert now >= seen or (folder / "run.zarr").exists(), f"committed parts are gone: {seen - now}"
        seen = now
        if with_scheduler and len(seen) > SHARDS // 2:
            print(f"  the scheduler is killed with {len(seen)} parts on disk")
            cluster.end()
            with_scheduler, cluster = False, Cluster()
            if code is None:  # it notices, and keeps what is on disk
                code = os.waitstatus_to_exitcode(os.waitpid(caller, 0)[1])
                assert code == BROKE, code
        if code == BROKE:
            caller = forked(partial(call, cluster.address, folder))
        elif done < kills:
            cluster.kill_worker()
            done += 1


def main(kills: int) -> None:
    random.seed(0)
    logging.getLogger("distributed").setLevel(logging.CRITICAL + 1)
    with tempfile.TemporaryDirectory() as place:
        reference = Path(place, "serial")
        assert os.waitpid(forked(lambda: swept(reference, None) and None), 0)[1] == 0
        exact, done, sweeps = tt.open_sweep(reference), 0, 0
        while done < kills:
            folder = Path(place, f"killed-{sweeps}")
            done += one_sweep(folder, kills - done, with_scheduler=sweeps == 0)
            sweeps += 1
            found = tt.open_sweep(folder)
            assert found.attrs["failed"] == "[]", found.attrs["failed"]
            for node in exact.leaves:
                xr.testing.assert_identical(found[node.path].to_dataset(), node.to_dataset())
            print(f"sweep {sweeps} is complete and the same to the last bit; {done} workers killed so far")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
