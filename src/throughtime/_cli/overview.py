"""A summary of a run, and the runs below a folder, one per line."""

from datetime import UTC, datetime
from pathlib import Path

import xarray as xr

import throughtime as tt
from throughtime._common.text.tables import Part, Table
from throughtime._monitor.overview import first_to_last
from throughtime._monitor.overview import overview as summary
from throughtime._tree import recorded_steps
from throughtime.diagnosis.training import losses
from throughtime.diagnostics.alarm import alarms_of_run

_COMMIT = "zarr.json"  # written last, with each record


def overview(tree: xr.DataTree, path: Path) -> list[Part]:
    """Return the result, steps, loss, horizons, alarms and size of a run, then model, duration and commit."""
    known = tree.attrs
    rows = (
        ("model", str(known.get("model_class", "")).rpartition(".")[2]),
        ("backend", str(known.get("backend", ""))),
        ("time", _duration(known.get("started"), path)),
        ("commit", str(known.get("git_commit", ""))),
    )
    return [*summary(tree).__parts__(), Table(tuple((name, words) for name, words in rows if words))]


def _loss(tree: xr.DataTree) -> str:
    known = losses(tree)
    return first_to_last(f"{each:.3g}" for each in known) if known else ""


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
            shown = (f"{len(steps)} to step {steps[-1]}" if steps else "0", _loss(tree), str(alarms))
        except tt.StoreError:
            shown = ("cannot be read", "", "")
        written = datetime.fromtimestamp(commit.stat().st_mtime).astimezone()
        rows.append((str(path.relative_to(folder)), *shown, f"{written:%Y-%m-%d %H:%M}"))
    return Table(tuple(rows), ("run", "records", "loss", "alarms", "last record"))
