"""The same weights and data give the same tree in every framework, variable by variable.

Each framework captures all cases in a process of its own; Keras on TensorFlow in float64 is what the others
are held against.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from tests.agreement.cases import CASES, Case

from throughtime.diagnostics import first_difference

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = "keras tensorflow"
KERAS_2 = "keras 2"  # with TensorFlow 2.15, in an environment of its own that scripts/test makes
FRAMEWORKS = (
    REFERENCE,
    "keras jax",
    "keras torch",
    "tf_keras eager",
    "tf_keras graph",
    KERAS_2,
    "torch",
    "nnx",
)
TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
COMPUTES_SINGLE = ("keras jax", "keras torch")  # whatever precision Keras is told: LIMITATIONS
RUNS = [
    (framework, dtype)
    for framework in FRAMEWORKS
    for dtype in TOLERANCE
    if dtype == "float32" or framework not in COMPUTES_SINGLE
]
# A GRU of NNX has no bias that its reset gate multiplies: `tests/jax` compares it with torch.
PAIRS = [(*run, case) for run in RUNS for case in CASES if (run[0], case.kind) != ("nnx", "gru")]
OWN = {"certificate_weights", "certificate_time", "certificate_output"}  # of each framework's own rounding
ONLY_IN_TORCH = {"recurrent_bias", "recurrent_bias_gradient"}  # of an LSTM and a SimpleRNN
OUTPUTS = {"output", "output_gradient"}  # of a layer that hands on one step: there and in JAX all have time
ONLY_IN_JAX = {"reset", "carried_gradient", "carried_by_state"}  # of a loop in one direction
SHARED = {"kind", "activation", "recurrent_activation", "units", "merge_mode", "reset_after"}
Captures = dict[tuple[str, str], xr.Dataset]


@pytest.fixture(scope="session")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Captures]:
    """Run a framework once, when the first test asks for it."""
    folder, known = tmp_path_factory.mktemp("agreement"), {}

    def run(framework: str) -> Captures:
        if framework not in known:
            known[framework] = capture_all(framework, folder / f"{framework}.pickle")
        return known[framework]

    return run


def capture_all(framework: str, file: Path) -> Captures:
    name, _, variant = framework.partition(" ")
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    python = environment.get("THROUGHTIME_KERAS2", "") if framework == KERAS_2 else sys.executable
    if not python:
        pytest.skip("there is no environment with Keras 2: scripts/test --full makes one")
    if name == "keras" and framework != KERAS_2:
        environment["KERAS_BACKEND"] = variant
    dtypes = [dtype for run, dtype in RUNS if run == framework]
    command = [python, "-m", "tests.agreement.capture", framework, str(file), *dtypes]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return pickle.loads(file.read_bytes())  # written a moment ago by ourselves


@pytest.mark.parametrize(("framework", "dtype", "case"), PAIRS, ids=lambda one: getattr(one, "name", one))
def test_the_same_tree(captured: Any, framework: str, case: Case, dtype: str) -> None:
    wanted = captured(REFERENCE)[case.name, "float64"]
    found = captured(framework)[case.name, dtype]
    only_there = ONLY_IN_TORCH if framework == "torch" and case.kind != "gru" else set()
    only_there = ONLY_IN_JAX & found.keys() if framework == "nnx" else only_there
    assert set(found.data_vars) - only_there - OWN == set(wanted.data_vars) - OWN
    others = OUTPUTS if framework in ("torch", "nnx") and not case.return_sequences else set()
    for name in set(wanted.data_vars) - OWN - others:
        assert found[name].dims == wanted[name].dims, name
        assert difference(at_valid(found, name), at_valid(wanted, name)) <= TOLERANCE[dtype], name
    if others:
        whole = found["output_gradient"].sum("time")
        assert difference(whole, wanted["output_gradient"]) <= TOLERANCE[dtype]
    for name in wanted.coords:
        assert found[name].equals(wanted[name])
    for name in SHARED & wanted.attrs.keys():
        assert found.attrs[name] == wanted.attrs[name], name
    if only_there == ONLY_IN_TORCH:
        assert difference(found["recurrent_bias_gradient"], wanted["bias_gradient"]) <= TOLERANCE[dtype]
    for pair in ((wanted, found), (found, wanted)):
        assert first_difference(*pair) is None


def at_valid(leaf: xr.Dataset, name: str) -> xr.DataArray:
    """Take what stands at padded steps, where each framework has a habit of its own, for 0."""
    array = leaf[name]
    if "time" not in array.dims or "valid" not in leaf or name == "valid":
        return array
    return array.where(leaf["valid"], 0.0).transpose(*array.dims)


def difference(found: xr.DataArray, wanted: xr.DataArray) -> float:
    """‖a − b‖ / ‖b‖ over the whole array; where b is zero, ‖a‖."""
    a, b = np.asarray(found, "float64"), np.asarray(wanted, "float64")
    assert a.shape == b.shape
    return float(np.linalg.norm(a - b) / (np.linalg.norm(b) or 1.0))
