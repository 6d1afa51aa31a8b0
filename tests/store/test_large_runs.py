"""A run larger than what a process may hold is opened, plotted and diagnosed; see benchmarks/open_runs.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
PROGRAM = Path(__file__).parents[2] / "benchmarks" / "open_runs.py"
MOST = 500e6  # bytes, libraries included


@pytest.fixture(scope="module")
def figures() -> dict[tuple[str, str], dict[str, float]]:
    command = [sys.executable, str(PROGRAM), "open", "evolution", "diagnose", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    return {(row["run"], row["what"]): row for row in json.loads(told)}


def test_ten_thousand_steps_open_as_fast_as_none(figures):
    assert figures["summary", "open"]["steps"] == 10_000
    assert figures["summary", "open"]["seconds"] < 1 + figures["empty", "open"]["seconds"]


@pytest.mark.parametrize("run", ["summary", "full"])
@pytest.mark.parametrize("what", ["evolution", "diagnose"])
def test_it_is_read_as_it_is_needed(figures, run, what):
    row = figures[run, what]
    assert row["peak"] < MOST
    assert row["extra"] < 0.5 * row["bytes"]


def test_the_captures_are_more_than_a_process_held(figures):
    assert figures["full", "evolution"]["bytes"] > 2 * MOST
