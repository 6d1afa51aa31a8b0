"""What throughtime costs, each figure a ratio against a named reference measured in the same process.

Shows progress and the table; every framework, the imports and the pictures run in a process each, one
after the other. First calls, which compile, are outside. A slow row is shown beside its limit and never
fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from math import isnan
from pathlib import Path

from blocks import DRIFT, FEWEST_CALLS, SECONDS_OF_A_BLOCK, Row
from rich.console import Console
from rich.table import Table

BACKENDS = ("tensorflow", "jax", "torch")
NATIVE = "native torch"  # torch modules, without Keras
LEGACY = "tf_keras"
PROGRAMS = {
    "imports": "imports.py",
    "pictures": "pictures.py",
    **dict.fromkeys(BACKENDS, "captures.py"),
    LEGACY: "captures.py",
    NATIVE: "captures_torch.py",
}
LIMITS = {
    "output gradients ÷ training step": "1.0",
    "everything ÷ training step": "2.0 (held: 2.5)",
    "one quantity ÷ training step": "none set",
    "lag matrix ÷ training step": "none set",
    "training, a monitor every 50 steps ÷ alone": "1.08",
    "the same, processor time": "1.08",
    "seconds: beginning of a monitor": "none set",
    "writing step 5000 ÷ step 10": "1.5",
    "everything, 2 T ÷ T": "2.2",
    "peak extra memory ÷ arrays captured": "2",
    "256 panels, 1 sample: subplots ÷ ours": "at least 50",
    "256 panels, 16 samples: subplots ÷ ours": "at least 25",
    "256 panels, 1 sample: subplots ÷ tt.plots.lines": "at least 50",
    "256 panels, 16 samples: subplots ÷ tt.plots.lines": "at least 25",
    "composite of 64 samples: subplots ÷ tt.plots.heatmap": "at least 5",
    "one image: subplots ÷ tt.plots.heatmap": "none set",
    "megabytes: lines, 256 × 16 samples": "none set",
    "megabytes: heatmap, 512 × 1000": "none set",
    "megabytes: composite, 64 samples": "none set",
    "import throughtime ÷ import numpy, xarray": "1.3",
}
BUSY = 0.5  # processes waiting for a core before we start


def measure(name: str, console: Console) -> Iterator[Row]:
    """Run one process and pass its rows on as they come."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "MPLBACKEND": "agg"}
    if name in (*BACKENDS, NATIVE):
        environment["KERAS_BACKEND"] = name if name in BACKENDS else "torch"
    if name == LEGACY:
        environment["THROUGHTIME_BENCH_LIBRARY"] = LEGACY
    command = [sys.executable, str(Path(__file__).with_name(PROGRAMS[name]))]
    # Frameworks talk on stderr: shown only where the process fails.
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        for line in process.stdout:
            row = {"where": name, **json.loads(line)}
            console.print(f"  {name}: {row['what']}, {row['case']}: {told(row)}")
            yield row
        if process.wait():
            errors.seek(0)
            console.print(f"{name} ended with code {process.returncode}:\n{errors.read()[-3000:]}")


def told(row: Row) -> str:
    return (
        f"discarded: the reference drifted over {DRIFT:.0%}" if isnan(row["ratio"]) else f"{row['ratio']:.2f}"
    )


def table(rows: list[Row]) -> Table:
    shown = Table("what", "case", "where", "ratio", "limit", title="throughtime's cost, as ratios")
    for what, limit in LIMITS.items():
        for row in (row for row in rows if row["what"] == what):
            shown.add_row(what, row["case"], row["where"], told(row), limit)
        shown.add_section()
    return shown


def main(names: list[str]) -> int:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if unknown := set(names) - set(PROGRAMS):
        console.print(f"There is no {', '.join(unknown)}. Name some of: {', '.join(PROGRAMS)}.")
        return 2
    started, load = time.monotonic(), os.getloadavg()[0]
    if load > BUSY:
        console.print(f"The load is {load:.1f} already: ratios of a busy machine scatter.")
    rows = []
    for name in names or PROGRAMS:
        console.print(f"{name}: measuring, {time.monotonic() - started:.0f} s so far")
        rows += measure(name, console)
    console.print(table(rows))
    console.print(
        f"{os.cpu_count()} cores, load {load:.1f} at the start; medians of blocks of at least "
        f"{SECONDS_OF_A_BLOCK:g} s and {FEWEST_CALLS} calls; {time.monotonic() - started:.0f} s."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
