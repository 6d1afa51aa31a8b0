"""`Result`: the run that a sweep writes, with one record a checkpoint."""

import json
from pathlib import Path

import numpy as np
import xarray as xr

from throughtime._capture.label import NamedArray
from throughtime._errors import SweepError
from throughtime._monitor.arrays import Arrays, as_tree
from throughtime._monitor.levels import QUANTILES
from throughtime._monitor.part import Part
from throughtime._monitor.whole import labelled, reduced, use_rows
from throughtime._store import Run, remove_run
from throughtime.diagnosis.swap import Swapped
from throughtime.diagnosis.use import pays, use_curve

from .engine import Failure
from .parts import RUN
from .task import SEED


class Result(Run):
    """The run that a sweep writes, checkpoint by checkpoint; it takes its place when it is complete."""

    def __init__(self, folder: Path, level: str) -> None:
        beside = folder / f".{RUN}"
        if beside.exists():
            remove_run(beside)
        super().__init__(beside)
        self._place, self._level, self._names = folder / RUN, level, list[str]()

    def add(self, name: str, number: int, part: Part) -> None:
        """Write the record of a checkpoint."""
        self.append(_tree_of(part, self._level), number)
        self._names.append(name)

    def complete(self, failures: list[Failure]) -> None:
        """Put the run in its place."""
        if not self._names:
            raise SweepError(f"Every task of the sweep failed. {failures[0].error}")
        failed = json.dumps([vars(each) for each in failures])
        self.annotate({"checkpoints": json.dumps(self._names), "failed": failed})
        self.close()
        remove_run(self._place)  # one in which tasks had failed
        self.path.rename(self._place)


def _tree_of(part: Part, level: str) -> xr.DataTree:
    """Label the record of one checkpoint."""
    found = {path: {**arrays, **_use(part, path, arrays)} for path, arrays in reduced(part, level).items()}
    tree = as_tree(found, labelled(part), QUANTILES)
    tree.attrs["samples"] = part.samples
    return tree


def _use(part: Part, path: str, arrays: Arrays) -> dict[str, NamedArray]:
    """Measure use over all samples, by lag; NaN at the lags that were not looked at."""
    rows = use_rows(part, path)
    if not rows or "lag_ratio" not in arrays:
        return {}
    changes, before = (rows[name].astype(np.float64) for name in ("use_changes", "use_before"))
    lags = (0, *part.labels["lags"])
    swapped = Swapped(lags, changes, before)
    curve = use_curve(swapped, seed=SEED)
    found = {}
    names = {"use": "use", "use_low": "low", "use_high": "high", "use_samples": "samples"}  # in the curve
    for name, source in names.items():
        values = np.full(len(arrays["lag_ratio"].values), np.nan)
        if curve is not None:
            values[list(lags[1:])] = curve[source].values
        found[name] = NamedArray(("lag",), values)
    return {**found, "use_pays": NamedArray((), np.asarray(float(pays(swapped, seed=SEED))))}
