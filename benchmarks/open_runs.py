"""How long a long run takes to open, and how much memory a large one takes to plot, diagnose and report.

`python benchmarks/open_runs.py [open evolution diagnose report] [--json]`. Two runs are made, a summary of
10,000 records and whole captures of a gigabyte, and each figure is of a process of its own. The long run
should open in a second more than an empty one, and be plotted within 500 MB.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import xarray as xr
from rich.console import Console
from rich.table import Table

import throughtime as tt
from throughtime import testing
from throughtime._monitor.levels import reduce_tree
from throughtime._store import Run

STEPS, CAPTURED_BYTES = 10_000, 2**30
MEASURED = {
    "empty": ("open",),
    "summary": ("open", "evolution", "diagnose", "report"),
    "full": ("open", "evolution", "diagnose", "report"),
}


def grow(path: Path, tree: xr.DataTree, steps: int) -> int:
    """Write the same record many times, a block of steps at a time, and commit; return the arrays' bytes."""
    with Run(path) as run:
        run.append(tree, 0)
        known = {key: array.read(0, 1) for key, array in run._arrays.items() if key != "step"}
        for start in range(1, steps, 64):
            stop = min(start + 64, steps)
            for key, one in known.items():
                run._arrays[key].append(np.repeat(one, stop - start, axis=0))
            run._arrays["step"].append(np.arange(start, stop, dtype=np.int64))
        run._commit(steps)
        return run.nbytes


def made(folder: Path) -> dict[str, dict[str, int]]:
    """Make the runs; tell their steps and bytes."""
    with Run(folder / "empty"):
        pass
    capture = testing.constant_gates(samples=16, steps=100, units=32)
    summary = grow(folder / "summary", reduce_tree(capture, "summary"), STEPS)
    count = CAPTURED_BYTES // capture.nbytes
    full = grow(folder / "full", capture, count)
    sizes = {"empty": (0, 0), "summary": (STEPS, summary), "full": (count, full)}
    return {name: {"steps": each[0], "bytes": each[1]} for name, each in sizes.items()}


def act(what: str, path: Path) -> None:
    """Do one thing with a run, as a user would."""
    run = tt.open_run(path)
    if what == "evolution":
        tt.save(tt.plots.evolution(run), path.with_suffix(".png"))
    elif what == "diagnose":
        str(tt.diagnose(run))
    elif what == "report":
        tt.report(run, path.with_suffix(".html"))


def resident(line: str) -> int:
    """Bytes that this process holds, VmRSS, or held at most, VmHWM."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition(f"{line}:")[2].split()[0]) * 1024


def figures(what: str, path: Path) -> dict[str, float]:
    """Measure in this process, after a first run of few steps has loaded what is loaded when first used."""
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small"
        with Run(small) as run:
            for step in range(2):
                run.append(testing.constant_gates(samples=3, steps=9, units=2), step)
        act(what, small)
    before, started = resident("VmRSS"), time.perf_counter()
    act(what, path)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "peak": resident("VmHWM"), "extra": resident("VmHWM") - before}


def measured(folder: Path, wanted: list[str]) -> list[dict[str, float | int | str]]:
    """Make the runs and measure each in a process of its own."""
    runs, rows = made(folder), []
    for name, acts in MEASURED.items():
        for what in [each for each in acts if each in wanted or not wanted]:
            command = [sys.executable, __file__, "measure", what, str(folder / name)]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            rows.append({"run": name, **runs[name], "what": what, **json.loads(told)})
    return rows


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["measure"]:
        print(json.dumps(figures(arguments[1], Path(arguments[2]))))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = measured(Path(folder), [each for each in arguments if each != "--json"])
    if "--json" in arguments:
        print(json.dumps(rows))
        return
    table = Table("run", "steps", "MB of arrays", "what", "seconds", "MB at most", "MB more than before")
    for row in rows:
        sizes = [f"{row[name] / 1e6:,.0f}" for name in ("peak", "extra")]
        start = (str(row["run"]), f"{row['steps']:,}", f"{row['bytes'] / 1e6:,.0f}", str(row["what"]))
        table.add_row(*start, f"{row['seconds']:.2f}", *sizes)
    Console().print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
