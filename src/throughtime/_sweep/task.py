"""One task: capture one shard at one checkpoint, and write what is kept of it."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from throughtime._capture.label import Captured
from throughtime._capture.probe import Probe
from throughtime._data.batch import Batch
from throughtime._errors import DiagnosticError, LossError
from throughtime._monitor.part import Part, part_of
from throughtime.diagnosis.layers import has_loss_per_step, reading_of, recurrent_layers, why_not_swapped
from throughtime.diagnosis.swap import Swapped, prefix_swap

from .files import merged_file, part_file, read_part, write_part
from .job import SEED, Job, job_at
from .shards import batch_of


def run_task(folder: Path, checkpoint: int, shard: int) -> None:
    """Do a task in a worker."""
    do_task(job_at(folder), folder, checkpoint, shard)


def do_task(job: Job, folder: Path, checkpoint: int, shard: int) -> None:
    """Capture a shard, reduce it, and write the part."""
    probe, batch = job.probe(checkpoint), batch_of(job.loads[shard])
    captured = probe.begin(batch.x, batch.y, sample_weight=batch.sample_weight)(warnings.warn)
    part = part_of(captured, None if job.level == "summary" else job.level)
    if job.level != "summary":
        part.add_shard(shard)
    _add_use(part, job, probe, batch, captured, seed=SEED + shard)
    write_part(part_file(folder, checkpoint, shard), part)


def _add_use(part: Part, job: Job, probe: Probe, batch: Batch, captured: Captured, *, seed: int) -> None:
    """Measure what samples lose more if inputs as old as the lag asked about come from others."""
    if job.lag is None:
        return
    try:
        leaves = recurrent_layers(captured.tree())
        if why_not_swapped(captured.attributes, leaves):
            return
        reading = reading_of(leaves, by_step=has_loss_per_step(leaves, batch.y), lag=job.lag)
        lags = (job.lag,)
        found = prefix_swap(probe, batch, reading, lags, seed=seed)
    except (DiagnosticError, LossError):  # nothing recurrent, or a loss that single samples do not have
        return
    samples = len(reading.valid)
    if found.reason:  # such as a single sample, which has no partner
        found = Swapped((), np.full((samples, len(lags) + 1), np.nan), np.full(samples, np.nan))
    for path in leaves:
        part.add_use(f"/{path}", lags, found.changes, found.before)


def merge(folder: Path, checkpoint: int, shards: int) -> None:
    """Add up the parts of a checkpoint, always in the same order, and write the result."""
    levels: list[tuple[int, Part]] = []
    for shard in range(shards):
        path = part_file(folder, checkpoint, shard)
        if not path.exists():  # the task has failed, and is named in the result
            continue
        levels.append((0, read_part(path)))
        while len(levels) > 1 and levels[-1][0] == levels[-2][0]:
            (level, last), (_, before) = levels.pop(), levels.pop()
            levels.append((level + 1, before + last))
    while len(levels) > 1:
        (_, last), (level, before) = levels.pop(), levels.pop()
        levels.append((level, before + last))
    if levels:
        write_part(merged_file(folder, checkpoint), levels[0][1])
