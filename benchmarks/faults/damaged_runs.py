"""Opens damaged and hostile runs in every way there is, each with a limit of time and of memory.

`python benchmarks/faults/damaged_runs.py [400]`: so many runs, some recorded in few numbers, some in whole
captures, packed or zipped, each damaged in one of the ways of `tests/store/damages.py`. All are opened,
checked, followed and continued; the commands, which take longer, take turns. A look may end well or in an
error of ours; it may not hang, take memory, end the process, or change what lies beside the run. `check` is
asked whether damage that changes what is read has been seen.
"""

import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import xarray as xr
from tests.store.damages import DAMAGES, EDITS, OUTSIDE
from tests.store.test_damage import WAYS, patience, recorded, resident
from typer.testing import CliRunner

import throughtime as tt
from throughtime import testing
from throughtime._cli import app
from throughtime._monitor.levels import reduce_tree
from throughtime._store import damage, pack

BATCH, SECONDS, MEMORY = 25, 30, 4 * 2**30
COMMANDS = {
    "info": [],
    "info --json": ["--json"],
    "check": [],
    "diagnose": [],
    "plot": ["evolution", "-o", "picture.html"],
    "report": ["-o", "report.html"],
    "export npz": ["-o", "run.npz"],
    "export zarr": ["-o", "packed.zarr"],
    "export nc": ["-o", "run.nc"],
}


def wide() -> xr.DataTree:
    leaf = testing.decaying(rate=0.9, samples=4, steps=20)["rnn"].to_dataset()
    return xr.DataTree.from_dict({"rnn": leaf.assign(wide=(("sample", "wider"), np.ones((4, 9000))))})


def bases(folder: Path) -> list[Path]:
    full = testing.decaying(rate=0.9, samples=4, steps=20)
    runs = [
        recorded(folder / name, tree, steps=5)
        for name, tree in (("summary", reduce_tree(full, "summary")), ("full", full), ("wide", wide()))
    ]
    pack(runs[1], folder / "packed")
    return [*runs, folder / "packed"]


def outcome(look, path: Path, caught: type[BaseException]) -> str:
    """Tell how one look ended: well, in an error of ours, or how else."""
    start = time.perf_counter()
    try:
        with patience(SECONDS):
            look(path)
    except caught:
        return "ours"
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} in {Path(place.filename).name}:{place.name}: {str(error)[:80]}"
    return "well" if time.perf_counter() - start < SECONDS / 2 else "slow"


def called(name: str, options: list[str], folder: Path):
    """Make a look of a command; its files go into the folder."""
    files = [str(folder / each) if "." in each else each for each in options]

    def look(path: Path) -> None:
        result = CliRunner().invoke(app, [name.split(maxsplit=1)[0], str(path), *files])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        if result.exit_code:
            raise tt.StoreError(result.output)

    return look


def values(path: Path) -> dict[str, bytes]:
    tree = tt.open_run(path)
    return {
        f"{node.path}/{name}": np.asarray(array.values).tobytes()
        for node in tree.subtree
        for name, array in node.to_dataset(inherit=False).variables.items()
    }


def unseen(path: Path, whole: dict[str, bytes]) -> bool:
    """Whether other numbers are read, and nothing is said."""
    try:
        return values(path) != whole and not list(damage(path))
    except tt.StoreError:
        return False


def work(first: int, last: int) -> None:
    """Damage and open some runs; print an outcome a line."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as kept:
        originals = bases(Path(kept))
        whole = [values(each) for each in originals]
        for number in range(first, last):
            with tempfile.TemporaryDirectory() as folder:
                for row in looks(number, Path(folder), originals, whole):
                    print(json.dumps(row), flush=True)


def looks(number: int, folder: Path, originals: list[Path], whole: list[dict[str, bytes]]):
    path, outside, made = folder / "run.zarr", folder / OUTSIDE, folder / "made"
    damaging = DAMAGES[number % len(DAMAGES)]
    base = number // len(DAMAGES) % len(originals)
    shutil.copytree(originals[base], path)
    for each in (outside, made):
        each.mkdir()
    (outside / "thesis").write_text("years of work")
    damaging(path, random.Random(number))
    before, label = {each.name: each.read_bytes() for each in outside.iterdir()}, damaging.__name__
    kinds = list(COMMANDS.items())
    name, options = kinds[(number // len(DAMAGES) + number) % len(kinds)]
    ways = {**{key: way for key, way in WAYS.items() if key != "Run"}, name: called(name, options, made)}
    if damaging not in EDITS and unseen(path, whole[base]):
        yield label, "check", "damage that is not seen"
    for way, look in {**ways, "Run": WAYS["Run"]}.items():
        memory = resident()
        found = outcome(look, path, tt.ThroughTimeError)
        yield (
            label,
            way,
            found if resident() - memory < MEMORY / 8 else f"{(resident() - memory) / 1e6:.0f} MB",
        )
    if {each.name: each.read_bytes() for each in outside.iterdir()} != before:
        yield label, "all", "changed what lies outside"
    if {each.name for each in folder.iterdir()} - {"run.zarr", OUTSIDE, "made", ".run.zarr.lock"}:
        yield label, "all", "left files beside the run"


def main(count: int) -> int:
    found, start = Counter(), time.perf_counter()
    for first in range(0, count, BATCH):
        command = [sys.executable, __file__, "--from", str(first), str(min(first + BATCH, count))]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=BATCH * 120, check=False)
            lines, code = done.stdout.splitlines(), done.returncode
        except subprocess.TimeoutExpired:
            lines, code = [], "timeout"
        found.update(tuple(json.loads(line)) for line in lines)
        if code:
            found[
                "any", "process", f"ended with {code}: {done.stderr[-300:] if code != 'timeout' else ''}"
            ] += 1
    ends = Counter()
    for (_, _, how), times in found.items():
        ends[how if how in ("well", "ours") else "bad"] += times
    print(f"{count} runs, {sum(ends.values())} looks in {time.perf_counter() - start:.0f} s: {dict(ends)}")
    for (label, way, how), times in sorted(found.items(), key=lambda item: -item[1]):
        if how not in ("well", "ours"):
            print(f"  {times} × {label}, {way}: {how}")
    return int(ends["bad"] > 0)


if __name__ == "__main__":
    if "--from" in sys.argv:
        work(*map(int, sys.argv[-2:]))
    else:
        sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 400))
