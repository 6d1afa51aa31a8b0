"""What a capture of a torch module is said to need against the memory that it takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
BUDGET = "5e8"  # not much more than is needed: memory is given back in between
ROOT = Path(__file__).resolve().parents[2]
CASES = [
    ("lstm", 1, 256, 8, 500, "all"),
    ("gru", 2, 256, 8, 500, "output_gradient"),
    ("lstmcell", 1, 128, 16, 300, "all"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_the_estimate_is_near_the_peak(case: tuple[object, ...]) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "tests.torch.peak_memory", *map(str, case), BUDGET],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    measured = json.loads(finished.stdout.splitlines()[-1])
    assert measured["needed"] >= measured["returned"]
    assert 0.8 < measured["needed"] / measured["peak"] < 2, measured
