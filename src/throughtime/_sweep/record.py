"""Writes the result of a sweep: a run with one record a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import xarray as xr

from throughtime._errors import SweepError
from throughtime._monitor.arrays import Array, as_tree
from throughtime._monitor.levels import QUANTILES
from throughtime._monitor.part import Part
from throughtime._monitor.whole import labelled, reduced, use_rows
from throughtime._store import Run, remove_run
from throughtime.diagnosis.swap import Swapped
from throughtime.diagnosis.use import pays, use_curve

from .engine import Failure
from .files import RUN, merged_file, read_part
from .job import SEED


def write(folder: Path, names: list[str], failures: list[Failure], level: str) -> None:
    """Write the run.

    Raises
    ------
    SweepError
        Every task failed.
    """
    beside = folder / f".{RUN}"
    if beside.exists():
        remove_run(beside)
    done = [place for place in range(len(names)) if merged_file(folder, place).exists()]
    if not done:
        raise SweepError(f"Every task of the sweep failed. {failures[0].error}")
    attributes = {
        "checkpoints": json.dumps([names[place] for place in done]),
        "failed": json.dumps([vars(each) for each in failures]),
    }
    with Run(beside, attributes=attributes) as written:
        for place in done:
            written.append(_tree_of(read_part(merged_file(folder, place)), level), place)
    remove_run(folder / RUN)  # one in which tasks had failed
    beside.rename(folder / RUN)


def _tree_of(part: Part, level: str) -> xr.DataTree:
    """Label the record of one checkpoint."""
    found = {path: {**arrays, **_use(part, path)} for path, arrays in reduced(part, level).items()}
    tree = as_tree(found, labelled(part), QUANTILES)
    tree.attrs["samples"] = part.samples
    return tree


def _use(part: Part, path: str) -> dict[str, Array]:
    """Measure use over all samples, by lag; NaN at the lags that were not looked at."""
    rows = use_rows(part, path)
    steps = part.steps(path)
    if not rows or not steps:
        return {}
    changes, before = (rows[name].astype(np.float64) for name in ("use_changes", "use_before"))
    lags = (0, *part.labels["lags"])
    swapped = Swapped(lags, changes, before)
    curve = use_curve(swapped, seed=SEED)
    found = {}
    names = {"use": "use", "use_low": "low", "use_high": "high", "use_samples": "samples"}  # in the curve
    for name, source in names.items():
        values = np.full(steps, np.nan)
        if curve is not None:
            values[list(lags[1:])] = curve[source].values
        found[name] = Array(("lag",), values)
    return {**found, "use_pays": Array((), np.asarray(float(pays(swapped, seed=SEED))))}
