"""Two processes that train one module write the run that one process writes of the whole batch."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from tests.monitor import parallel
from tests.monitor.loops import BATCH, MSE, made
from torch import nn

import throughtime as tt
from throughtime._monitor.together import Together

CASES = {
    "lstm": {"monitor": {}},
    "same batch": {"monitor": {"quantities": "full"}, "same": True},
    "trainer": {"monitor": {}, "trainer": True},
    "both": {"monitor": {"quantities": "timestep"}, "layer": {"kind": nn.GRU, "bidirectional": True}},
}


def whole(folder: Path, options: dict[str, Any]) -> xr.DataTree:
    """Record, in this process and on the whole batch, the weights that two processes had."""
    run = tt.open_run(folder / "run.zarr")
    monitor = tt.Monitor(
        folder / "whole.zarr", BATCH, loss=MSE, every=2, vanishing_lag=None, **options["monitor"]
    )
    torch.manual_seed(0)
    module = made(**options.get("layer", {}))
    optimizer = torch.optim.SGD(module.parameters(), 0.05)
    with monitor.watch(module, optimizer=optimizer):
        for _ in range(parallel.STEPS):
            optimizer.zero_grad()
            halves = [MSE(module(parallel.X[rank::2]), parallel.Y[rank::2]) for rank in range(2)]
            (sum(halves) / 2).backward()
            optimizer.step()
            monitor.step()
    assert run.sizes["step"] == 4
    return tt.open_run(folder / "whole.zarr")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Let two processes do all that is tested here, each thing in a folder of its name."""
    folder = tmp_path_factory.mktemp("two")
    calls = {name: (parallel.record, options) for name, options in CASES.items()}
    others = {"watch": (parallel.watch,), "stop": (parallel.stop,), "fail": (parallel.fail,)}
    parallel.as_two(calls | others, folder)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_the_run_is_that_of_one_process(folder: Path, case: str) -> None:
    own = folder / case
    exact, found = whole(own, CASES[case]), tt.open_run(own / "run.zarr")
    assert [node.path for node in found.leaves] == [node.path for node in exact.leaves]
    for node in exact.leaves:
        mine = found[node.path]
        assert set(mine.data_vars) == set(node.data_vars)
        for name, array in node.data_vars.items():
            assert (mine[name].dims, mine[name].dtype) == (array.dims, array.dtype), name
            # A certificate is rounding itself: both are below the bar of float32.
            near = {"atol": 1e-5 if "certificate" in str(name) else 0, "err_msg": str(name)}
            np.testing.assert_allclose(mine[name][0], array[0], rtol=1e-6, **near)
            # Later weights differ already: two processes round otherwise when they add up gradients.
            np.testing.assert_allclose(mine[name], array, rtol=1e-5, **near)
    for rank in range(2):
        plain, watched = (torch.load(own / f"{name}-{rank}.pt") for name in ("plain", "watched"))
        assert all(
            torch.equal(one, other) for one, other in zip(plain[0].values(), watched[0].values(), strict=True)
        )
        assert torch.equal(plain[1], watched[1])
        assert json.loads((own / f"warnings-{rank}").read_text()) == []


def test_an_alarm_stops_all_processes_at_the_same_step(folder: Path) -> None:
    taken = [(folder / "stop" / f"taken-{rank}").read_text() for rank in range(2)]
    assert taken[0] == taken[1] == "3"


def test_a_batch_of_some_processes_would_count_twice(tmp_path: Path) -> None:
    settings = tt.Monitor(tmp_path / "run.zarr", BATCH)._settings
    prints = [{"sha256": each, "arrays": []} for each in ("one", "one", "other")]
    with pytest.raises(tt.MonitorError, match="would count twice"):
        Together(SimpleNamespace(gather=lambda _: prints), settings)


def test_watch(folder: Path) -> None:
    (path,) = {(folder / "watch" / f"path-{rank}").read_text() for rank in range(2)}
    run = tt.open_run(folder / "watch" / path)
    assert run["rnn"]["step"].values.tolist() == [0, 2, 4]
    assert run["rnn"]["lag_ratio_samples"].values[0, 0] == len(parallel.X)


def test_what_cannot_be_recorded_is_an_error_in_all_processes(folder: Path) -> None:
    own = folder / "fail"
    first, second = (json.loads((own / f"errors-{rank}").read_text()) for rank in range(2))
    expected = {
        "other steps": "Pad all of them to the same number of steps",
        "labels missing": "lacks arrays that another one has",
        "background": "background=False",
        "full": "quantities= summary or timestep",
    }
    for case, text in expected.items():
        assert text in first[case]
        assert text in second[case]
    assert "model.module" in first["alone"]  # the second process does not watch the model
    assert not (own / "run.zarr").exists()
