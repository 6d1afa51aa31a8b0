"""One task, which captures one shard at one checkpoint, and the `Job`: what all tasks of a sweep share."""

import inspect
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import xarray as xr

from throughtime import __version__
from throughtime._capture.label import Captured
from throughtime._capture.probe import Probe
from throughtime._errors import DiagnosticError, LossError, SweepError
from throughtime._inputs.batch import Batch
from throughtime._monitor.part import part_of
from throughtime.adapters import choose
from throughtime.diagnosis.layers import has_loss_per_step, reading_of, recurrent_layers, why_not_swapped
from throughtime.diagnosis.order import Mirror, with_labels
from throughtime.diagnosis.swap import Swapped, prefix_swap
from throughtime.diagnostics.lags import valid_steps

from .parts import JOB, Parts, write_part, written
from .shards import Load, batch_of

SEED = 0
LEVELS: tuple[str, ...] = ("summary", "timestep")


@dataclass
class Job:
    """Everything that a task needs."""

    model: Any  # or a function without arguments that makes it
    loss: Any
    layers: Any
    checkpoints: list[tuple[str, Any]]  # name, and a path, weights, or None for those that the model has
    loads: tuple[Load, ...]  # of a shard each
    lag: int | None = None  # at which use is measured
    level: str = "summary"  # one of `LEVELS`
    _at: int | None = field(default=None, init=False)
    _made: Any = field(default=None, init=False)
    # The model of the probe: some weights are a model themselves.
    _probed: Any = field(default=None, init=False)
    _probe: Probe | None = field(default=None, init=False)
    mirror: Mirror | None = field(default=None, init=False)  # which layers read backwards

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
        """Write the job for other processes."""
        try:
            content = cloudpickle.dumps(self)
        except Exception as error:  # a model's parts may raise anything
            raise SweepError(
                f"The model, the loss or a shard cannot be sent to other processes: {error}. Pass a function "
                "that makes the model, model=make_model, and functions that load the shards."
            ) from error
        written(folder / JOB, content)


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
    """Refuse to work with another version of throughtime than the caller's."""
    if version != __version__:
        raise SweepError(
            f"A worker has throughtime {__version__}, the caller {version}. Install one version."
        )


def run_task(folder: Path, checkpoint: int, shard: int) -> None:
    """Do a task in a worker."""
    do_task(job_at(folder), folder, checkpoint, shard)


def do_task(job: Job, folder: Path, checkpoint: int, shard: int) -> None:
    """Capture a shard, reduce it, write the part, and add up what this completes."""
    probe, batch = job.probe(checkpoint), batch_of(job.loads[shard])
    captured = probe.begin(batch.x, batch.y, sample_weight=batch.sample_weight)(warnings.warn)
    captured, leaves = _count_as_read(captured)
    part = part_of(captured, None if job.level == "summary" else job.level)
    if job.level != "summary":
        part.add_shard(shard)
    if job.lag is not None and leaves and not why_not_swapped(captured.attributes, leaves):
        job.mirror = job.mirror or Mirror(probe)
        axes, leaves = captured.attributes.get("output_axes"), job.mirror(leaves, batch)
        use = _measure_use(probe, batch, leaves, axes, lag=job.lag, seed=SEED + shard)
        if use is not None:
            for path in leaves:
                part.add_use(f"/{path}", (job.lag,), use.changes, use.before)
    parts = Parts(folder, checkpoint, len(job.loads))
    write_part(parts.file(0, shard), part)
    parts.add_up(shard)


def _count_as_read(captured: Captured) -> tuple[Captured, dict[str, xr.Dataset]]:
    """Count time as `diagnose` does; return the recurrent layers, too, if there are any.

    Every shard stores which steps count, wherever its samples are read.
    """
    tree = captured.tree()
    try:
        leaves = recurrent_layers(tree)
    except DiagnosticError:
        return captured, {}
    for path, leaf in leaves.items():
        has_time = {"sample", "time"} <= {*leaf.dims}
        tree[path].dataset = leaf.assign(valid=valid_steps(leaf)) if has_time else leaf
    return Captured.of(tree), leaves


def _measure_use(
    probe: Probe, batch: Batch, leaves: dict[str, xr.Dataset], axes: object, *, lag: int, seed: int
) -> Swapped | None:
    """Measure what samples lose more if inputs as old as the lag asked about come from others."""
    try:
        by_step = has_loss_per_step(probe, leaves, batch, axes, seed=seed)
        if by_step and hasattr(batch.y, "shape"):  # several arrays are not judged
            leaves = with_labels(probe, leaves, batch)
        reading = reading_of(leaves, batch, by_step=by_step, lag=lag)
        found = prefix_swap(probe, batch, reading, (lag,), seed=seed)
    except (DiagnosticError, LossError):  # such as a loss that single samples do not have
        return None
    if not found.reason:
        return found
    samples = len(reading.valid)  # perhaps a single one, which has no partner
    return Swapped((), np.full((samples, 2), np.nan), np.full(samples, np.nan))
