"""A summary of a run in ten lines, and the runs below a folder, one per line."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import xarray as xr

import throughtime as tt
from throughtime._monitor.overview import first_to_last, on_disk
from throughtime._monitor.overview import overview as summary
from throughtime._text.tables import Table
from throughtime._tree import recorded_steps
from throughtime.diagnosis.findings import NOT_MEASURED
from throughtime.diagnosis.training import losses
from throughtime.diagnostics.alarm import alarms_of_run

_COMMIT = "zarr.json"  # written last, with each record


def overview(tree: xr.DataTree, path: Path) -> Table:
    """Tabulate model, steps, duration, loss, horizons, alarms and size of a run."""
    steps, known = recorded_steps(tree), tree.attrs
    framework = " ".join(str(known[name]) for name in ("framework", "framework_version") if name in known)
    model = str(known.get("model_class", "")).rpartition(".")[2]
    backend = f"on {known['backend']}" if "backend" in known else ""
    found = summary(tree)
    layers = [leaf.path.strip("/") for leaf in tree.leaves if leaf.data_vars]
    rows = [
        ("run", str(path)),
        ("model", ", ".join(filter(None, [model, f"{framework} {backend}".strip()]))),
        ("layers", ", ".join(layers)),
        ("steps", f"{len(steps)} records, steps {steps[0]} to {steps[-1]}" if steps else "none yet"),
        ("time", _duration(known.get("started"), path)),
        ("loss", _loss(tree)),
        *(("horizon", words) for words in _horizons(found.history)),
        ("alarms", "; ".join(map(str, found.alarms)) or "none"),
        ("size", on_disk(path)),
        ("commit", str(known.get("git_commit", ""))),
    ]
    return Table(tuple((name, words) for name, words in rows if words))


def _loss(tree: xr.DataTree) -> str:
    known = losses(tree)
    return first_to_last(f"{each:.3g}" for each in known) if known else ""


def _horizons(history: pd.DataFrame) -> Iterator[str]:
    """Format the horizon of each layer at the first and the last record."""
    for name, horizons in history.items():
        if (path := str(name).removeprefix("horizon ")) != name:
            yield f"{path} {first_to_last(horizons)}{' steps' * (horizons.iloc[-1] != NOT_MEASURED)}"


def _duration(started: object, path: Path) -> str:
    """Format the time of the first record, and the duration until the last."""
    if started is None:
        return ""
    begun = datetime.fromisoformat(str(started))
    try:
        ended = datetime.fromtimestamp((path / _COMMIT).stat().st_mtime, UTC)
    except OSError:  # a zip
        return f"from {begun:%Y-%m-%d %H:%M}"
    return f"{_seconds((ended - begun).total_seconds())}, from {begun:%Y-%m-%d %H:%M} UTC"


def _seconds(count: float) -> str:
    """Write a duration.

    Examples
    --------
    >>> _seconds(43.2), _seconds(150), _seconds(8000)
    ('43 s', '2 min 30 s', '2 h 13 min')
    """
    minutes, seconds = divmod(round(max(count, 0.0)), 60)
    hours, left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {left} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def runs_below(folder: Path) -> Table:
    """Tabulate the runs in a folder and below it, the latest first."""
    commits = [each for each in folder.rglob(_COMMIT) if not (each.parent.parent / _COMMIT).exists()]
    rows = []
    for commit in sorted(commits, key=lambda each: each.stat().st_mtime, reverse=True):
        path = commit.parent
        try:
            tree = tt.open_run(path)
            steps, alarms = recorded_steps(tree), len(alarms_of_run(tree.attrs))
            told = (f"{len(steps)} to step {steps[-1]}" if steps else "0", _loss(tree), str(alarms))
        except tt.StoreError:
            told = ("cannot be read", "", "")
        written = datetime.fromtimestamp(commit.stat().st_mtime).astimezone()
        rows.append((str(path.relative_to(folder)), *told, f"{written:%Y-%m-%d %H:%M}"))
    return Table(tuple(rows), ("run", "records", "loss", "alarms", "last record"))
