"""Runs everything that must hold, each framework in a process of its own, two processes at a time.

Started by `scripts/test`; arguments go to pytest. The processes report through `report_plugin`, the
support table comes from the files that `tests/conftest.py` leaves in THROUGHTIME_RESULTS.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.rule import Rule
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
BACKENDS = ("tensorflow", "jax", "torch")
NATIVE = "native torch"  # torch modules, without Keras
TABLES = {"Keras": BACKENDS, "PyTorch": (NATIVE,)}
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
    backend: str = "jax"
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


def suites(folder: Path, arguments: list[str]) -> list[Suite]:
    """List the processes, the longest first: each framework, the framework-free tests, the checks."""
    paths = [each for each in arguments if (ROOT / each.partition("::")[0]).exists()]
    options = [each for each in arguments if each not in paths]
    keras, native = (
        [each for each in paths if each.startswith(f"tests/{folder}")] for folder in ("keras", "torch")
    )
    core = [each for each in paths if each not in (*keras, *native)]
    listed = []
    if keras or not paths:
        command = pytest_command([*(keras or ["tests/keras"]), *options])
        listed += [Suite(backend, command, folder, backend) for backend in BACKENDS]
    if native or not paths:
        command = pytest_command([*(native or ["tests/torch"]), *options])
        listed.append(Suite(NATIVE, command, folder, "torch"))
    if core or not paths:
        # The examples in docstrings run once, without regard to the backend.
        folders = ("keras", "torch", "tf_keras", "tf_keras_graph")
        ignored = [f"--ignore=tests/{each}" for each in folders]
        targets = core or ["tests", *ignored, "src/throughtime", "--doctest-modules"]
        listed.append(Suite("core", pytest_command([*targets, *options]), folder))
    if not arguments:
        listed.append(Suite("check", ["bash", "scripts/check"], folder))
    return listed


def pytest_command(arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", "pytest", "-p", "tests.report_plugin", "--color=no", *arguments]


def environment(suite: Suite, results: Path) -> dict[str, str]:
    """Give the process its backend, a share of the cores and the places to report to."""
    threads = str(max(1, (os.cpu_count() or 2) // PROCESSES))
    names = ("OMP", "OPENBLAS", "MKL", "TF_NUM_INTRAOP", "TF_NUM_INTEROP")
    limits = {name + ("_THREADS" if name.startswith("TF") else "_NUM_THREADS"): threads for name in names}
    return {
        "THROUGHTIME_FULL": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        **limits,
        **os.environ,
        "KERAS_BACKEND": suite.backend,
        "MPLBACKEND": "agg",
        "THROUGHTIME_EVENTS": str(suite.events),
        "THROUGHTIME_RESULTS": str(results),
        "THROUGHTIME_SUITE": suite.name,
    }


def execute(suite: Suite, results: Path) -> None:
    console.print(f"{suite.name}: started")
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
    """Print row × backend of each support table, under its groups, with counts."""
    outcomes = {path.stem: json.loads(path.read_text()) for path in results.glob("*.json")}
    for name, columns in TABLES.items():
        own = [suite for suite in listed if suite.name in columns and suite.name in outcomes]
        if own:
            print_table(name, own, outcomes)


def print_table(name: str, listed: list[Suite], outcomes: dict[str, dict[str, str]]) -> None:
    groups = {row: group for suite in listed for row, group in suite.groups.items()}
    backends = [suite.name for suite in listed]
    table = Table(f"supported, {name}", *backends)
    for group in dict.fromkeys(groups.values()):
        rows = [row for row in groups if groups[row] == group]
        table.add_row(group, *counts(rows, outcomes, backends), style="bold")
        for row in rows:
            table.add_row(f"  {row}", *(MARKS[outcomes[backend].get(row)] for backend in backends))
        table.add_section()
    table.add_row("all", *counts(list(groups), outcomes, backends), style="bold")
    console.print(table)


def counts(rows: list[str], outcomes: dict[str, dict[str, str]], backends: list[str]) -> list[str]:
    passed = [sum(outcomes[backend].get(row) == "passed" for row in rows) for backend in backends]
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


def main(arguments: list[str]) -> int:
    missing = [name for name in ("keras", *BACKENDS) if find_spec(name) is None]
    if missing:
        console.print(f"Not installed: {', '.join(missing)}. Run scripts/test, which installs everything.")
        return 1
    with tempfile.TemporaryDirectory(prefix="throughtime-") as temporary:
        folder = Path(temporary)
        results = Path(os.environ.get("THROUGHTIME_RESULTS", folder / "results")).resolve()
        results.mkdir(parents=True, exist_ok=True)
        for stale in results.glob("*.json"):
            stale.unlink()
        listed = suites(folder, arguments)
        with ThreadPoolExecutor(PROCESSES) as pool:
            list(pool.map(lambda suite: execute(suite, results), listed))
        print_failures(listed)
        print_support(listed, results)
        return conclude(listed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
