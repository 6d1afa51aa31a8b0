"""Runs the tests, each framework in its own process, two processes at a time.

`scripts/test` starts it. Without arguments it leaves out the tests marked `slow` and the suites in FULL_ONLY;
`--full` runs everything, `--suite NAME` one process alone. Other arguments go to pytest. The processes report
through `report_plugin`; the support tables are read from the files that `tests/conftest.py` writes to
THROUGHTIME_RESULTS.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.rule import Rule
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.render.browser import NO_CHROMIUM, path_of_chromium

ROOT = Path(__file__).resolve().parent.parent
BACKENDS = ("tensorflow", "jax", "torch")
NATIVE = "native torch"  # torch modules, without Keras
PROGRAMS = "jax programs"  # Flax, Equinox and plain functions, without Keras
GRAPH = "tf_keras graph"
KERAS_2 = "Keras 2.15"
LEGACY = ("tf_keras", GRAPH, KERAS_2)
TABLES = {"Keras": BACKENDS, "tf_keras and Keras 2": LEGACY, "PyTorch": (NATIVE,)}
# Folder of tests -> the processes that run it; what is in none of them is the core.
FOLDERS = {
    "keras": BACKENDS,
    "torch": (NATIVE,),
    "jax": (PROGRAMS,),
    "tf_keras": ("tf_keras", KERAS_2),
    "tf_keras_graph": (GRAPH,),
    "agreement": ("agreement",),
}
# Processor seconds of each suite, whole and quick: the longest start first, so that both cores end together.
SECONDS = {
    "jax": (1790, 230),
    "tensorflow": (1400, 180),
    "core": (1050, 540),
    "agreement": (650, 150),
    KERAS_2: (600, 0),
    "tf_keras": (500, 170),
    GRAPH: (450, 115),
    "torch": (225, 170),
    NATIVE: (130, 130),
    PROGRAMS: (120, 120),
    "check": (100, 100),
}
FULL_ONLY = (KERAS_2,)
XLA_FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
# XLA aborts at a flag that it does not know: TensorFlow 2.15 and JAX after 0.10 do not know this one.
HAS_EMITTERS = find_spec("jax") is not None and version("jax").startswith("0.10.")
XLA_FLAGS_OF_JAX = f"{XLA_FLAGS} --xla_cpu_use_fusion_emitters=false" if HAS_EMITTERS else XLA_FLAGS
JAX_ALONE = ("jax", "core", PROGRAMS)
FULL = "--full"
SUITE = "--suite"
PYTHON_OF_KERAS_2 = "THROUGHTIME_KERAS2"  # an interpreter with TensorFlow 2.15, which scripts/test makes
PROCESSES = 2
SECONDS_BETWEEN_LINES = 10
LINES_OF_A_FAILURE = 400
NO_TESTS_SELECTED = 5  # pytest's exit code
MARKS = {"passed": "✓", "failed": "✗", None: "·"}

console = Console(highlight=False, markup=False, soft_wrap=True)


@dataclass
class Suite:
    """One process: its command, where it writes, and what its tests have come to."""

    name: str
    command: list[str]
    folder: Path
    status: int | None = None
    total: int = 0
    outcomes: dict[str, str] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)  # of the support table's rows

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def events(self) -> Path:
        return self.folder / f"{self.name}.events"

    def count(self, outcome: str) -> int:
        return sum(each == outcome for each in self.outcomes.values())

    def read(self) -> None:
        """Bring the counts up to date; a test that failed once stays failed."""
        lines = self.events.read_text(encoding="utf-8").splitlines() if self.events.exists() else []
        for event in map(json.loads, lines):
            self.total = event.get("total", self.total)
            self.groups.update(event.get("groups", {}))
            if "test" in event and self.outcomes.get(event["test"]) != "failed":
                self.outcomes[event["test"]] = event["outcome"]

    def line(self) -> str:
        counts = [f"{self.count('passed')} passed"]
        counts += [f"{self.count(each)} {each}" for each in ("failed", "skipped") if self.count(each)]
        share = f" … {100 * len(self.outcomes) // self.total} %" if self.total else ""
        return f"{self.name}: {', '.join(counts)}{share}"


def suites(folder: Path, arguments: list[str], *, is_quick: bool) -> list[Suite]:
    """List the processes, the longest first: each framework, the framework-free tests, the checks."""
    paths = [each for each in arguments if (ROOT / each.partition("::")[0]).exists()]
    options = [each for each in arguments if each not in paths]
    listed, taken = [], []
    for tests, names in FOLDERS.items():
        own = [each for each in paths if re.match(rf"tests/{tests}(/|$)", each)]
        taken += own
        if own or not paths:
            targets = [*(own or [f"tests/{tests}"]), *options]
            chosen = [name for name in names if not (is_quick and name in FULL_ONLY)]
            listed += [Suite(name, pytest_command(targets, name), folder) for name in chosen]
    core = [each for each in paths if each not in taken]
    if core or not paths:
        # The examples in docstrings run once, without regard to the backend.
        ignored = [f"--ignore=tests/{tests}" for tests in FOLDERS]
        targets = core or ["tests", *ignored, "src/throughtime", "--doctest-modules"]
        listed.append(Suite("core", pytest_command([*targets, *options], "core"), folder))
    if not arguments:
        listed.append(Suite("check", ["bash", "scripts/check"], folder))
    return sorted(listed, key=lambda suite: -SECONDS[suite.name][is_quick])


def pytest_command(arguments: list[str], name: str) -> list[str]:
    python = os.environ[PYTHON_OF_KERAS_2] if name == KERAS_2 else sys.executable
    return [python, "-m", "pytest", "-p", "tests.report_plugin", "--color=no", *arguments]


def backend(suite: Suite) -> str:
    """Return what Keras 3 computes on in this process."""
    return suite.name if suite.name in BACKENDS else "torch" if suite.name == NATIVE else "jax"


def environment(suite: Suite, results: Path) -> dict[str, str]:
    """Give the process its backend, a share of the cores and the places to report to."""
    threads = str(max(1, (os.cpu_count() or 2) // PROCESSES))
    names = ("OMP", "OPENBLAS", "MKL", "TF_NUM_INTRAOP", "TF_NUM_INTEROP")
    limits = {name + ("_THREADS" if name.startswith("TF") else "_NUM_THREADS"): threads for name in names}
    return {
        "THROUGHTIME_FULL": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # Each test compiles small programs that run once: most of JAX's time is optimisation. What two tests,
        # or two processes, compile alike is compiled once; the limit makes JAX lock the folder.
        "XLA_FLAGS": XLA_FLAGS_OF_JAX if suite.name in JAX_ALONE else XLA_FLAGS,
        "JAX_COMPILATION_CACHE_DIR": str(suite.folder / "compiled"),
        "JAX_COMPILATION_CACHE_MAX_SIZE": str(2**30),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        **limits,
        **os.environ,
        "KERAS_BACKEND": backend(suite),
        "MPLBACKEND": "agg",
        "THROUGHTIME_EVENTS": str(suite.events),
        "THROUGHTIME_RESULTS": str(results),
        "THROUGHTIME_SUITE": suite.name,
    }


def execute(suite: Suite, results: Path) -> None:
    console.print(f"{suite.name}: started")
    start = time.monotonic()
    with suite.log.open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            suite.command,
            cwd=ROOT,
            env=environment(suite, results),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        watch(suite, process)
    suite.status = process.returncode
    verdict = "finished" if is_clean(suite) else f"FAILED with exit code {suite.status}"
    verdict += f" after {(time.monotonic() - start) / 60:.1f} min"
    console.print(f"{suite.line()}: {verdict}" if suite.outcomes else f"{suite.name}: {verdict}")


def watch(suite: Suite, process: subprocess.Popen[bytes]) -> None:
    """Print a line now and then until the process ends."""
    said, due = "", time.monotonic() + SECONDS_BETWEEN_LINES
    while process.poll() is None:
        time.sleep(0.2)
        suite.read()
        if time.monotonic() > due and suite.outcomes and suite.line() != said:
            said, due = suite.line(), time.monotonic() + SECONDS_BETWEEN_LINES
            console.print(said)
    suite.read()


def is_clean(suite: Suite) -> bool:
    nothing_selected = suite.status == NO_TESTS_SELECTED and "-k" in suite.command
    return suite.status == 0 or nothing_selected


def print_failures(listed: list[Suite]) -> None:
    for suite in listed:
        if not is_clean(suite):
            console.print(Rule(suite.name))
            lines = suite.log.read_text(encoding="utf-8", errors="replace").splitlines()
            console.print("\n".join(lines[-LINES_OF_A_FAILURE:]))


def print_support(listed: list[Suite], results: Path) -> None:
    """Print row × framework of each support table, under its groups, with counts."""
    outcomes = {path.stem: json.loads(path.read_text()) for path in results.glob("*.json")}
    for name, columns in TABLES.items():
        own = [suite for suite in listed if suite.name in columns and suite.name in outcomes]
        if own:
            print_table(name, own, outcomes)


def print_table(name: str, listed: list[Suite], outcomes: dict[str, dict[str, str]]) -> None:
    groups = {row: group for suite in listed for row, group in suite.groups.items()}
    columns = [suite.name for suite in listed]
    table = Table(f"supported, {name}", *columns)
    for group in dict.fromkeys(groups.values()):
        rows = [row for row in groups if groups[row] == group]
        table.add_row(group, *counts(rows, outcomes, columns), style="bold")
        for row in rows:
            table.add_row(f"  {row}", *(MARKS[outcomes[column].get(row)] for column in columns))
        table.add_section()
    table.add_row("all", *counts(list(groups), outcomes, columns), style="bold")
    console.print(table)


def counts(rows: list[str], outcomes: dict[str, dict[str, str]], columns: list[str]) -> list[str]:
    passed = [sum(outcomes[column].get(row) == "passed" for row in rows) for column in columns]
    return [f"{count} of {len(rows)}" for count in passed]


def conclude(listed: list[Suite]) -> int:
    """Print the closing line and return the exit code."""
    passed, failed, skipped = (
        sum(suite.count(outcome) for suite in listed) for outcome in ("passed", "failed", "skipped")
    )
    # A process can fail with no failed test: the checks, a crash, a plugin that does not load.
    failed += sum(not is_clean(suite) and not suite.count("failed") for suite in listed)
    if passed == 0:
        console.print("No test has passed: that is a failure.")
    closing = f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else "")
    console.print(closing)
    return int(failed > 0 or passed == 0)


def taken_suite(arguments: list[str]) -> tuple[str | None, list[str]]:
    """Take `--suite NAME` out of the arguments."""
    if SUITE not in arguments:
        return None, arguments
    place = arguments.index(SUITE)
    return arguments[place + 1], [*arguments[:place], *arguments[place + 2 :]]


def main(arguments: list[str]) -> int:
    is_quick = not arguments
    only, arguments = taken_suite([each for each in arguments if each != FULL])
    os.environ["THROUGHTIME_QUICK"] = str(int(is_quick))  # for tests/conftest.py
    missing = [name for name in ("keras", "tf_keras", *BACKENDS) if find_spec(name) is None]
    if not is_quick and only is None and PYTHON_OF_KERAS_2 not in os.environ:
        missing.append(f"{KERAS_2} (it needs a Python 3.11: install one beside yours)")
    if missing:
        console.print(f"Not installed: {', '.join(missing)}. Run scripts/test, which installs everything.")
        return 1
    if path_of_chromium() is None:
        console.print(f"Tests of pages are skipped: {NO_CHROMIUM}.")
    with tempfile.TemporaryDirectory(prefix="throughtime-") as temporary:
        folder = Path(temporary)
        results = Path(os.environ.get("THROUGHTIME_RESULTS", folder / "results")).resolve()
        results.mkdir(parents=True, exist_ok=True)
        for stale in results.glob("*.json"):
            stale.unlink()
        listed = suites(folder, arguments, is_quick=is_quick or only is not None)
        listed = [suite for suite in listed if only in (None, suite.name)]
        with ThreadPoolExecutor(PROCESSES) as pool:
            list(pool.map(lambda suite: execute(suite, results), listed))
        print_failures(listed)
        print_support(listed, results)
        return conclude(listed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
