"""Trains a module with DistributedDataParallel in two processes, each with its part of the batch."""

from __future__ import annotations

import contextlib
import json
import sys
import time
import warnings
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from tests.monitor.loops import BATCH, MSE, X, Y, made
from tests.monitor.test_transformers import StandIn
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import throughtime as tt
from throughtime.adapters.torch import training as processes

STEPS = 6
UNEVEN = slice(0, 5), slice(5, 8)  # the samples of the batch that each process has


def as_two(calls: dict[str, tuple[Any, ...]], folder: Path) -> None:
    """Make calls, each in a folder of its name, in two new processes that form a group."""
    torch.multiprocessing.spawn(_run, (calls, folder), nprocs=2)


def _run(rank: int, calls: dict[str, tuple[Any, ...]], folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        for name, (target, *arguments) in calls.items():
            own = folder / name
            own.mkdir(exist_ok=True)
            with warnings.catch_warnings(record=True) as caught, contextlib.chdir(own):
                warnings.simplefilter("always", tt.ThroughTimeWarning)
                target(rank, own, *arguments)
            texts = [str(each.message) for each in caught if issubclass(each.category, tt.ThroughTimeWarning)]
            (own / f"warnings-{rank}").write_text(json.dumps(texts))
    finally:
        dist.destroy_process_group()


def train(rank: int, module: nn.Module, step: Any = None, steps: int = STEPS) -> Any:
    """Train on every second sample; return the parallel module."""
    parallel = DistributedDataParallel(module)
    optimizer = torch.optim.SGD(parallel.parameters(), 0.05)
    for _ in range(steps):
        if step is not None and not step(parallel, optimizer):
            break
        optimizer.zero_grad()
        MSE(parallel(X[rank::2]), Y[rank::2]).backward()
        optimizer.step()
    return parallel


def record(rank: int, folder: Path, options: dict[str, Any]) -> None:
    """Train with and without a monitor, and keep weights and random states of both."""
    rows = slice(None) if options.get("same") else UNEVEN[rank]
    batch = tuple(each[rows] for each in BATCH)
    monitor: Any = tt.Monitor(
        folder / "run.zarr", batch, loss=MSE, every=2, vanishing_lag=None, **options["monitor"]
    )
    if options.get("trainer"):
        monitor = InTrainer(monitor, rank)
    for name in ("watched", "plain"):
        torch.manual_seed(rank)
        module = made(**options.get("layer", {}))
        train(rank, module, partial(counted, monitor) if name == "watched" else None)
        if name == "watched":
            monitor.step()
            monitor.end()
        torch.save((module.state_dict(), torch.get_rng_state()), folder / f"{name}-{rank}.pt")


class InTrainer:
    """Calls a monitor's callback as the Trainer of transformers does, with the module alone."""

    def __init__(self, monitor: tt.Monitor, rank: int) -> None:
        sys.modules.setdefault("transformers", StandIn("transformers"))
        mode = SimpleNamespace(value="distributed")
        self.callback, self.monitor = monitor.transformers(), monitor
        self.control = SimpleNamespace(should_training_stop=False)
        self.state = SimpleNamespace(global_step=0, is_world_process_zero=rank == 0)
        self.given = SimpleNamespace(parallel_mode=mode, fsdp="", deepspeed=None), self.state, self.control

    @property
    def _recorder(self) -> Any:
        return self.monitor._recorder

    @property
    def should_stop(self) -> bool:
        return self.control.should_training_stop

    def begin(self, parallel: Any, optimizer: Any) -> None:
        self.callback.on_train_begin(*self.given, model=parallel.module, optimizer=optimizer)

    def step(self) -> None:
        self.state.global_step += 1
        self.callback.on_step_end(*self.given)

    def end(self) -> None:
        self.callback.on_train_end(*self.given)


def counted(monitor: Any, parallel: Any, optimizer: Any) -> bool:
    """Begin before the first step, and count every other; return whether training goes on."""
    if monitor._recorder is None:
        monitor.begin(parallel, optimizer=optimizer)
    else:
        monitor.step()
    return not monitor.should_stop


def stop(rank: int, folder: Path) -> None:
    """Train until an alarm stops it: after two steps a weight becomes NaN."""
    module, taken = made(), 0
    batch = tuple(each[UNEVEN[rank]] for each in BATCH)
    monitor = tt.Monitor(folder / "run.zarr", batch, loss=MSE, every=1, stop_on="nonfinite")

    def spoiled(parallel: Any, optimizer: Any) -> bool:
        nonlocal taken
        goes_on = counted(monitor, parallel, optimizer)
        taken += 1
        if taken == 2:
            with torch.no_grad():
                module.rnn.weight_hh_l0[6, 0] = float("nan")
        return goes_on

    train(rank, module, spoiled, steps=20)
    monitor.end()
    (folder / f"taken-{rank}").write_text(str(taken))


def watch(rank: int, folder: Path) -> None:
    """Train with `tt.watch`, whose batch is the first training batch of each process."""
    module = made()
    parallel = DistributedDataParallel(module)
    monitor = tt.watch(parallel, every=2, loggers=[])
    optimizer = torch.optim.SGD(parallel.parameters(), 0.05)
    for _ in range(4):
        optimizer.zero_grad()
        MSE(parallel(X[rank::2]), Y[rank::2]).backward()
        optimizer.step()
    monitor.end()
    (folder / f"path-{rank}").write_text(str(monitor.path))


CASES = ("other steps", "labels missing", "background", "full", "alone")


def fail(rank: int, folder: Path) -> None:
    """Write down the errors of monitors that are used wrongly."""
    processes.PATIENCE = timedelta(seconds=10)
    parallel, errors = DistributedDataParallel(made()), {}
    for case in CASES:
        batch, options = tuple(each[UNEVEN[rank]] for each in BATCH), {}
        if case == "other steps" and rank:
            batch = batch[0][:, :9], batch[1]
        elif case == "labels missing" and rank:
            batch = batch[0], None
        elif case == "background":
            options = {"background": True}
        elif case == "full":
            options = {"quantities": "full"}
        elif case == "alone" and rank:
            break
        try:
            with tt.Monitor(folder / "run.zarr", batch, loss=MSE, **options).watch(parallel):
                pass
        except tt.ThroughTimeError as error:
            errors[case] = str(error)
    (folder / f"errors-{rank}").write_text(json.dumps(errors))
    while not all((folder / f"errors-{each}").exists() for each in range(2)):
        time.sleep(0.1)  # the group lives as long as its processes
