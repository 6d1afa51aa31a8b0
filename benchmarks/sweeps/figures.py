"""Costs of a sweep: of a task, of memory, of opening, of two processes, and of what the simulation assumes.

`OMP_NUM_THREADS=1 python benchmarks/sweeps/figures.py [task memory adding flatness opening scaling engine]`.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import psutil
import torch
from torch import nn

import throughtime as tt
from throughtime._monitor.part import part_of
from throughtime._store import Run
from throughtime._sweep.parts import Parts, write_part
from throughtime._sweep.record import Result

LOSS = nn.functional.mse_loss
MEGABYTE = 2**20
LARGE = {"samples": 256, "steps": 200, "units": 64}


class Reader(nn.Module):
    def __init__(self, units: int) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(2, units, batch_first=True), nn.Linear(units, 1)

    def forward(self, x: Any) -> Any:
        return self.head(self.rnn(x)[0][:, -1])


def made(units: int = 8) -> Reader:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return Reader(units)


def shard(number: int, samples: int = 16, steps: int = 20, **_: int) -> tuple[Any, Any]:
    x = np.random.default_rng(number).normal(size=(samples, steps, 2)).astype(np.float32)
    return torch.as_tensor(x), torch.as_tensor(x[:, -3, :1])


def loads(count: int, **sizes: int) -> list[Any]:
    return [partial(shard, number, **sizes) for number in range(count)]


def task(folder: Path, count: int = 150) -> dict[str, float]:
    """Processor time of a task beyond the capture that it makes, with its share of merging and writing."""
    probe = tt.Probe(made(), loss=LOSS)
    probe(*shard(0))
    start = time.process_time()
    for number in range(count):
        probe(*shard(number))
    alone = time.process_time() - start
    start = time.process_time()
    tt.sweep(made(), loads(count), loss=LOSS, to=folder / "task")
    whole = time.process_time() - start
    return {"capture, ms": 1e3 * alone / count, "a task beyond it, ms": 1e3 * (whole - alone) / count}


def memory(folder: Path, count: int = 24) -> dict[str, float]:
    """Resident memory when each shard is loaded."""
    resident: list[float] = []
    shards = [partial(measured, resident, number, **LARGE) for number in range(count)]
    tt.sweep(made(LARGE["units"]), shards, loss=LOSS, to=folder / "memory")
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"at shard 10, MB": resident[10], "at the last, MB": resident[-1], "largest, MB": largest}


def measured(resident: list[float], number: int, **sizes: int) -> tuple[Any, Any]:
    resident.append(psutil.Process().memory_info().rss / MEGABYTE)
    return shard(number, **sizes)


def adding(folder: Path, count: int = 1000, different: int = 24) -> dict[str, float]:
    """Add up 1,000 large parts, which repeat some that differ, as workers do whose part completes a group."""
    probe, parts, resident = tt.Probe(made(LARGE["units"]), loss=LOSS), Parts(folder, 0, count), []
    for number in range(different):
        write_part(folder / f"{number}.npz", part_of(probe.begin(*shard(number, **LARGE))(warnings.warn)))
    size = (folder / "0.npz").stat().st_size / 1024
    parts.file(0, 0).parent.mkdir()
    start = time.process_time()
    for number in range(count):
        shutil.copy(folder / f"{number % different}.npz", parts.file(0, number))
        parts.add_up(number)
        resident.append(psutil.Process().memory_info().rss / MEGABYTE)
    return {
        "a part, kB": size,
        "their sum, kB": parts.file(parts.top, 0).stat().st_size / 1024,
        "a part added, ms": 1e3 * (time.process_time() - start) / count,
        "a record of their sum, ms": _of_record(folder, parts),
        "at part 10, MB": resident[10],
        f"at part {count - 1}, MB": resident[-1],
    }


def _of_record(folder: Path, parts: Parts) -> float:
    with Result(folder, "summary") as result:
        result.add("first", 0, parts.total())  # creates the run
        start = time.process_time()
        result.add("second", 1, parts.total())
    return 1e3 * (time.process_time() - start)


def flatness(folder: Path, count: int = 1000) -> dict[str, float]:
    """Resident memory over many shards, each a sixteenth as large."""
    resident: list[float] = []
    shards = [partial(measured, resident, number, samples=32, steps=100) for number in range(count)]
    tt.sweep(made(LARGE["units"]), shards, loss=LOSS, to=folder / "flatness")
    return {f"at shard {number}, MB": resident[number] for number in (10, 100, 300, 500, count - 1)}


def opening(folder: Path, count: int = 2000) -> dict[str, float]:
    """Seconds to write and to open a sweep of 2,000 checkpoints of one shard each."""
    place = folder / "opening"
    tree = tt.sweep(made(), loads(1), loss=LOSS, to=place).isel(step=0).compute()
    (place / "run.zarr").rename(place / "one.zarr")
    names = json.dumps([f"epoch {number}" for number in range(count)])
    tree = tree.map_over_datasets(lambda each: each.drop_vars(["step", "checkpoint"], errors="ignore"))
    tree.attrs["checkpoints"] = names
    start = time.process_time()
    with Run(place / "run.zarr", attributes={"checkpoints": names, "failed": "[]"}) as run:
        for number in range(count):
            run.append(tree, number)
    written = time.process_time() - start
    start = time.perf_counter()
    found = tt.open_sweep(place)
    opened = time.perf_counter() - start
    assert found["rnn"].sizes["step"] == count
    return {"a record, ms": 1e3 * written / count, "opening, s": opened}


def scaling(folder: Path, count: int = 12, repeats: int = 4) -> dict[str, float]:
    """Two processes beside one, on tasks of a second; the pools are warm, and the machine has to be quiet.

    Other work on the machine only adds time, so the shortest of several sweeps counts.
    """
    seconds = {}
    sent, sizes = partial(made, LARGE["units"]), {**LARGE, "samples": 512}
    for workers in (1, 2):
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            for name, shards in [
                ("warm", loads(2 * workers, **sizes)),
                *((str(each), loads(count, **sizes)) for each in range(repeats)),
            ]:
                start = time.perf_counter()
                tt.sweep(sent, shards, loss=LOSS, to=folder / f"{name}-{workers}", executor=pool)
                seconds[workers, name] = time.perf_counter() - start
    least = {n: min(seconds[n, str(each)] for each in range(repeats)) for n in (1, 2)}
    return {
        "one process, s": least[1],
        "two processes, s": least[2],
        "two processes, share of the ideal": least[1] / 2 / least[2],
    }


def engine(folder: Path, count: int = 2000) -> dict[str, float]:
    """Processor time of dask for a task that does nothing: caller, scheduler and worker in one process."""
    cluster = distributed.LocalCluster(1, threads_per_worker=1, processes=False, dashboard_address=None)
    with cluster, distributed.Client(cluster) as client:
        executor = client.get_executor()
        start = time.process_time()
        futures = [executor.submit(divmod, number, 7) for number in range(count)]
        submitted = time.process_time() - start
        for future in futures:
            future.result()
        whole = time.process_time() - start
    return {"submitting, ms": 1e3 * submitted / count, "all of a task, ms": 1e3 * whole / count}


if __name__ == "__main__":
    measures = {each.__name__: each for each in (task, memory, adding, flatness, opening, scaling, engine)}
    for name in sys.argv[1:] or measures:
        with tempfile.TemporaryDirectory() as place:
            for text, value in measures[name](Path(place)).items():
                print(f"{name}: {text}: {value:.3g}", flush=True)
