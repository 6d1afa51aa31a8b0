"""A run larger than what a process may hold is opened, plotted and diagnosed; see benchmarks/open_runs.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import open_runs

import throughtime as tt
from throughtime import testing
from throughtime._monitor.levels import reduce_tree

MOST = 500e6  # bytes, libraries included
SUMMARY = reduce_tree(testing.constant_gates(samples=16, steps=20, units=4), "summary")


@pytest.fixture(scope="module")
def figures() -> dict[tuple[str, str], dict[str, float]]:
    command = [sys.executable, open_runs.__file__, "evolution", "diagnose", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    return {(row["run"], row["what"]): row for row in json.loads(told)}


def files_read(run: Path) -> set[Path]:
    """Give the files that opening a run reads, those of its index of steps aside."""
    read, is_open = set(), True

    def note(event: str, arguments: tuple[object, ...]) -> None:  # it stays as long as the process
        if is_open and event == "open" and str(arguments[0]).startswith(str(run)):
            read.add(Path(str(arguments[0])).relative_to(run))

    sys.addaudithook(note)
    tt.open_run(run)
    is_open = False
    return {file for file in read if "step" not in file.parts}


def test_many_steps_open_with_the_files_of_a_few(tmp_path: Path) -> None:
    few, many = tmp_path / "few", tmp_path / "many"
    open_runs.grow(few, SUMMARY, 300)
    open_runs.grow(many, SUMMARY, 3000)
    assert len([*many.rglob("*")]) > 5 * len([*few.rglob("*")])
    assert files_read(many) == files_read(few)


@pytest.mark.slow
@pytest.mark.parametrize("run", ["summary", "full"])
@pytest.mark.parametrize("what", ["evolution", "diagnose"])
def test_it_is_read_as_it_is_needed(figures, run, what):
    row = figures[run, what]
    assert row["peak"] < MOST
    assert row["extra"] < 0.5 * row["bytes"]


@pytest.mark.slow
def test_the_captures_are_more_than_a_process_held(figures):
    assert figures["full", "evolution"]["bytes"] > 2 * MOST
