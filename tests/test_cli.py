"""The command line on runs with known answers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner

import throughtime as tt
from throughtime import testing
from throughtime._cli import app, commands, pictures
from throughtime._monitor.levels import reduce_tree
from throughtime._store import Run
from throughtime.diagnostics.alarm import Alarm, as_attribute


@pytest.fixture
def run(tmp_path: Path) -> Path:
    with Run(tmp_path / "run.zarr", attributes={"model": "toy"}) as writer:
        for step, rate in ((0, 0.5), (10, 0.9)):
            writer.append(testing.decaying(rate=rate, samples=4, steps=30), step)
    return tmp_path / "run.zarr"


def called(*arguments: Any, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def test_info(run: Path) -> None:
    told = json.loads(CliRunner().invoke(app, ["info", str(run), "--json"]).output)
    assert (told["steps"], told["first_step"], told["last_step"], told["model"]) == (2, 0, 10, "toy")
    assert "hidden_gradient" in told["layers"]["rnn"]
    assert "last step 10" in called("info", run, "--verbose")


def test_info_says_what_matters(run: Path) -> None:
    told = called("info", run)
    assert told.startswith("The gradient reaches lag 8.")
    assert "2 records to step 10" in told
    assert " files" in told
    assert re.search(r"step loss horizon rnn 0 \S+ 6 10 \S+ ≥ 29", told)


def test_ls_lists_runs_below_a_folder(run: Path, tmp_path: Path) -> None:
    with Run(tmp_path / "deep" / "other.zarr") as writer:
        writer.append(testing.decaying(samples=4, steps=30), 5)
    told = called("ls", tmp_path)
    assert "run.zarr 2 to step 10" in told
    assert "deep/other.zarr 1 to step 5" in told
    assert "There is no run in" in called("ls", tmp_path / "deep" / "none")


def test_info_tells_alarms(run: Path) -> None:
    with Run(run) as writer:
        alarms = as_attribute([Alarm("explosion", "rnn", 3, "12 times the signal")])
        writer.annotate({"alarms": alarms, "alarms_off": "[]"})
    told = json.loads(CliRunner().invoke(app, ["info", str(run), "--json"]).output)
    assert told["alarms"] == [
        {"name": "explosion", "layer": "rnn", "step": 3, "evidence": "12 times the signal"}
    ]
    assert "Alarms step 3: explosion in rnn: 12 times the signal" in called("info", run)
    assert "alarms off none" in called("info", run, "--verbose")


def test_watch_refuses_a_file_and_a_port_that_cannot_be(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "is a file" in called("watch", tmp_path / "file", "--no-open", code=1)
    assert "Port 99999 is not available" in called("watch", run, "--no-open", "--port", 99_999, code=1)


def test_check(run: Path) -> None:
    assert "2 steps, all whole" in called("check", run)
    chunk = next(path for path in (run / "rnn" / "hidden" / "c").rglob("*") if path.is_file())
    chunk.write_bytes(b"torn")
    assert "rnn/hidden of steps 0 to 10 cannot be read" in called("check", run, code=1)


@pytest.mark.parametrize("level", ["summary", "timestep"])
def test_check_reads_a_run_of_norms(tmp_path: Path, level: str) -> None:
    with Run(tmp_path / "run.zarr") as writer:
        writer.append(reduce_tree(testing.constant_gates(samples=4, steps=30), level), 0)
    assert "1 steps, all whole" in called("check", tmp_path / "run.zarr")
    assert tt.diagnostics.first_nonfinite(tt.open_run(tmp_path / "run.zarr")) is None


def test_check_finds_a_nan(tmp_path: Path) -> None:
    with Run(tmp_path / "run.zarr") as writer:
        writer.append(testing.nonfinite("cell", sample=1, time=7, unit=2), 3)
    assert "nan in cell of rnn" in called("check", tmp_path / "run.zarr", code=1)


def test_check_finds_a_nan_of_which_a_run_has_the_norm(tmp_path: Path) -> None:
    with Run(tmp_path / "run.zarr") as writer:
        tree = testing.nonfinite("hidden_gradient", sample=1, time=7, unit=2)
        writer.append(reduce_tree(tree, "timestep"), 3)
    found = called("check", tmp_path / "run.zarr", code=1)
    assert "nan in hidden_gradient_norm of rnn: step 0, sample 1, time 7" in found


def test_check_finds_a_certificate_above_the_bar_of_its_dtype(tmp_path: Path) -> None:
    def spoiled(leaf: xr.Dataset) -> xr.Dataset:
        return leaf.assign(certificate_time=1e-5 + leaf["certificate_time"]) if leaf.data_vars else leaf

    with Run(tmp_path / "run.zarr") as writer:
        writer.append(testing.decaying(rate=0.9).map_over_datasets(spoiled), 0)  # float64 allows 1e-12
    assert "certificate_time is 1e-05, float64 allows 1e-12" in called("check", tmp_path / "run.zarr", code=1)


def test_diagnose_and_compare(run: Path) -> None:
    brief = called("diagnose", run, "--dependency-length", 5)
    assert brief.startswith(
        "The gradient reaches lag 5. Reach at lag 5 59 % in rnn Use at lag 5 not measured"
    )
    last = called("diagnose", run, "--dependency-length", 5, "--verbose")
    alone = str(tt.diagnose(testing.decaying(rate=0.9, samples=4, steps=30), dependency_length=5))
    assert last.startswith(f"At training step 10, the last recorded one: {' '.join(alone.split())}")
    assert "Reach of rnn at lag 5 has risen since step 0, from 0.0313" in last
    told = json.loads(CliRunner().invoke(app, ["diagnose", str(run), "--json"]).output)
    assert [record["step"] for record in told["history"]["records"]] == [0, 10]
    json.loads(CliRunner().invoke(app, ["diagnose", str(run), "--step", "0", "--json"]).output)
    json.loads(CliRunner().invoke(app, ["compare", str(run), str(run), "--json"]).output)


@pytest.mark.parametrize("level", ["summary", "timestep", "full"])
def test_plot_lists_what_each_picture_needs_and_this_run_has(tmp_path: Path, level: str) -> None:
    tree = testing.constant_gates(samples=4, steps=30)
    with Run(tmp_path / "run.zarr") as writer:
        for step in range(2):
            writer.append(tree if level == "full" else reduce_tree(tree, level), step)
    rows = pictures.table_of_plots(tt.open_run(tmp_path / "run.zarr")).rows
    order = ["any run", "quantities='timestep'", "quantities='full'"]
    enough = order[: ["summary", "timestep", "full"].index(level) + 1]
    for name, needs, is_here in rows:
        assert (needs in enough) == (is_here == "yes"), name


def test_watch_takes_the_next_port_where_its_own_is_taken(run: Path) -> None:
    first, second = (commands._at_next_port(run) for _ in range(2))
    try:
        assert first.port < second.port < 5026
    finally:
        first.close()
        second.close()


@pytest.mark.parametrize("picture", ["evolution", "heatmap", "lag_profile", "gradient_flow"])
def test_plot(run: Path, tmp_path: Path, picture: str) -> None:
    called("plot", run, picture, "-o", tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("level", ["summary", "timestep"])
@pytest.mark.parametrize("options", [(), ("--step", 0)])
def test_report_of_a_run_that_keeps_norms(tmp_path: Path, level: str, options: tuple[Any, ...]) -> None:
    with Run(tmp_path / "run.zarr") as writer:
        for step in range(2):
            writer.append(reduce_tree(testing.decaying(rate=0.9, samples=4), level), step)
    called("report", tmp_path / "run.zarr", "-o", tmp_path / "page.html", *options)
    text = (tmp_path / "page.html").read_text("utf-8")
    assert ("During training" in text) == (not options)
    assert "Use at lag" in text


def test_report(run: Path, tmp_path: Path) -> None:
    called("report", run, "-o", tmp_path / "page.html", "--step", 10)
    assert "<html" in (tmp_path / "page.html").read_text("utf-8")


def test_export(run: Path, tmp_path: Path) -> None:
    opened = tt.open_run(run)["rnn"]
    called("export", run, "-o", tmp_path / "run.npz")
    with np.load(tmp_path / "run.npz") as arrays:
        np.testing.assert_array_equal(arrays["step"], [0, 10])
        np.testing.assert_array_equal(arrays["rnn/hidden"], opened["hidden"])
    called("export", run, "--to", "netcdf", "-o", tmp_path / "run.nc")
    xr.testing.assert_equal(xr.open_datatree(tmp_path / "run.nc")["rnn"].to_dataset(), opened.to_dataset())
    called("export", run, "--to", "parquet", "-o", tmp_path / "run.parquet")
    frame = pd.read_parquet(tmp_path / "run.parquet")
    assert frame.index.tolist() == [0, 10]
    np.testing.assert_array_equal(frame["rnn/loss"], opened["loss"])
    assert "there are zarr, netcdf, npz, parquet, csv" in called(
        "export", run, "--to", "xlsx", "-o", "x", code=1
    )


def test_export_to_zarr_is_the_same_run_in_fewer_files(tmp_path: Path) -> None:
    run, packed = tmp_path / "run.zarr", tmp_path / "packed.zarr"
    with Run(run, attributes={"model": "toy"}) as writer:
        for step in range(20):
            tree = testing.decaying(rate=0.9, samples=8, steps=50)
            tree.dataset = xr.Dataset({"gradient_norm": 2.5} if step else {})
            writer.append(tree, step)
    called("export", run, "--to", "zarr", "-o", packed)
    opened = tt.open_run(packed)
    xr.testing.assert_identical(opened.load(), tt.open_run(run).load())
    assert "20 steps, all whole" in called("check", packed)
    files = [sum(path.is_file() for path in folder.rglob("*")) for folder in (run, packed)]
    assert files[1] < files[0] / 2
    called("export", run, "-o", packed)  # in the place of what was packed before
    assert "exists already" in called("export", packed, "-o", run, code=1)
    with pytest.raises(tt.StoreError, match="steps cannot be added"):
        Run(packed)
    xr.testing.assert_identical(tt.open_run(packed).load(), opened)


def test_export_of_what_the_training_loop_told(tmp_path: Path) -> None:
    with Run(tmp_path / "run.zarr") as writer:
        for step, told in ((0, {}), (10, {"gradient_norm": 2.5})):
            tree = testing.decaying(samples=4, steps=30)
            tree.dataset = xr.Dataset(told)
            writer.append(tree, step)
    wanted = [np.nan, 2.5]
    called("export", tmp_path / "run.zarr", "-o", tmp_path / "run.npz")
    with np.load(tmp_path / "run.npz") as arrays:
        np.testing.assert_array_equal(arrays["gradient_norm"], wanted)
    called("export", tmp_path / "run.zarr", "--to", "parquet", "-o", tmp_path / "run.parquet")
    np.testing.assert_array_equal(pd.read_parquet(tmp_path / "run.parquet")["gradient_norm"], wanted)
    called("export", tmp_path / "run.zarr", "--to", "netcdf", "-o", tmp_path / "run.nc")
    np.testing.assert_array_equal(xr.open_datatree(tmp_path / "run.nc")["gradient_norm"], wanted)
    assert "2 steps, all whole" in called("check", tmp_path / "run.zarr")
    told = called("info", tmp_path / "run.zarr", "--verbose")
    assert told.endswith("training loop: gradient_norm")


def test_doctor() -> None:
    told = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).output)
    assert told["numpy"] == np.__version__
    assert told["supports"]["Keras 3 on TensorFlow"]
    assert not told["supports"]["Keras 2 of TensorFlow 2.15"]  # which has no room beside Keras 3
    told = called("doctor")
    assert "PyTorch modules yes monitor.watch()" in told
    assert "'throughtime[keras2]'" in told


def test_errors_are_one_line_and_name_the_remedy(run: Path, tmp_path: Path) -> None:
    assert "There is no run at" in called("info", tmp_path / "none", code=1)
    assert "the nearest is 10" in called("diagnose", run, "--step", 8, code=1)
    assert "There are: compare, contributions, evolution" in called(
        "plot", run, "nonsense", "-o", "x", code=1
    )
    assert "--layer is one of rnn" in called("plot", run, "gates", "-o", "x", "--layer", "gru", code=1)
    called("plot", run, code=2)
