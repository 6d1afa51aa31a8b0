"""A damaged or hostile run ends in one error of ours; nothing hangs, grows, or changes outside of it."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, Phase, given, settings
from tests.store.damages import DAMAGES, OUTSIDE, fifo
from typer.testing import CliRunner

import throughtime as tt
from throughtime import testing
from throughtime._cli import app
from throughtime._pages.live.follower import Follower
from throughtime._store import Run, damage, pack, remove_run

SMALL = testing.constant_gates(samples=2, steps=6)
LARGE = xr.DataTree.from_dict({"rnn": xr.Dataset({"wide": (("sample", "unit"), np.ones((3, 9000)))})})


def recorded(path: Path, tree: xr.DataTree = SMALL, steps: int = 3) -> Path:
    with Run(path) as run:
        for step in range(steps):
            run.append(tree, step)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded(tmp_path_factory.mktemp("whole") / "run.zarr")


@contextmanager
def patience(seconds: int) -> Iterator[None]:
    def ends(*_: Any) -> None:
        raise AssertionError(f"it hangs: {seconds} s")

    before = signal.signal(signal.SIGALRM, ends)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def goes_on(path: Path) -> None:
    with Run(path) as run, suppress(OSError):  # as on any disk: the record is not there
        run.append(SMALL, 99)


WAYS: dict[str, Callable[[Path], Any]] = {
    "open_run": lambda path: tt.open_run(path).load(),
    "check": lambda path: list(damage(path)),
    "Follower": lambda path: (follower := Follower(path)).refresh() and follower.tree.load(),
    "Run": goes_on,
}


@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(place=st.sampled_from(range(len(DAMAGES))), seed=st.integers(0, 2**32))
def test_any_damage_ends_in_an_error_of_ours(whole: Path, place: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, outside = Path(folder, "run.zarr"), Path(folder, OUTSIDE)
        shutil.copytree(whole, path)
        outside.mkdir()
        (outside / "thesis").write_text("years of work")
        DAMAGES[place](path, random.Random(seed))
        before = {each.name: each.read_bytes() for each in outside.iterdir()}
        resident_before = resident()
        for way in WAYS.values():
            with patience(120), warnings.catch_warnings():
                warnings.simplefilter("ignore", tt.ThroughTimeWarning)
                with suppress(tt.StoreError):
                    way(path)
        assert {each.name: each.read_bytes() for each in outside.iterdir()} == before
        assert resident() - resident_before < 300e6


@pytest.mark.parametrize("tree", [SMALL, LARGE], ids=["grown in place", "written once"])
def test_a_flipped_bit_of_any_file_is_found_with_variable_and_step(tmp_path: Path, tree: xr.DataTree) -> None:
    path, rng = recorded(tmp_path / "run.zarr", tree), random.Random(0)
    assert list(damage(path)) == []
    rows = {key: array.nbytes // 3 for key, array in _arrays(path)}
    summed = json.loads((path / "zarr.json").read_text())["attributes"]["checksums"]
    for file in sorted(each for each in path.rglob("*") if each.is_file()):
        content, key = file.read_bytes(), f"{file.parent.relative_to(path)}/".partition("/c/")[0].strip("/")
        # Beyond its steps, a chunk that grows has nothing.
        grows = key in rows and file.name != "zarr.json" and (tree is SMALL or key == "step")
        committed = 3 * rows[key] if grows else 4 * len(summed) if "checksums" in key else len(content)
        at = rng.randrange(min(len(content), committed))
        file.write_bytes(content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :])
        found = _found(path)
        assert found, f"{file} bit of byte {at}"
        if key in rows and file.name != "zarr.json":
            assert key in found
            record = at // rows[key]
            assert not grows or (f"record {record + 1}" if key == "step" else f"of step {record} ") in found
        file.write_bytes(content)
    assert list(damage(path)) == []


def _arrays(path: Path) -> Iterator[tuple[str, xr.DataArray]]:
    tree = tt.open_run(path)
    yield "step", tree["step"]
    for leaf in tree.leaves:
        for name, array in leaf.data_vars.items():
            yield f"{leaf.path}/{name}".strip("/"), array


def _found(path: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tt.ThroughTimeWarning)
        try:
            return "; ".join(damage(path))
        except tt.StoreError as error:
            return str(error)


def test_damage_names_the_steps_that_are_still_readable(tmp_path: Path) -> None:
    path = recorded(tmp_path / "run.zarr", LARGE, steps=4)
    chunk = path / "rnn" / "wide" / "c" / "2" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:50])
    tree = tt.open_run(path)
    with pytest.raises(tt.StoreError, match=r"rnn/wide of step 2 cannot be read.*other 3 of 4 steps"):
        tree.load()
    assert tt.open_run(path)["rnn"]["wide"].isel(step=[0, 1, 3]).load().shape == (3, 3, 9000)


def test_a_run_that_was_changed_is_opened_with_a_warning_and_not_continued(tmp_path: Path) -> None:
    path = recorded(tmp_path / "run.zarr")
    commit = path / "zarr.json"
    commit.write_text(commit.read_text().replace('"n_steps"', '"note": "mine", "n_steps"'))
    with pytest.warns(tt.ThroughTimeWarning, match=r"changed after it was written"):
        assert tt.open_run(path).attrs["note"] == "mine"
    with pytest.raises(tt.StoreError, match="nothing is added"):
        Run(path)


def test_nothing_outside_is_cut_back_by_who_continues_a_run(tmp_path: Path) -> None:
    home = tmp_path / "home" / "c" / "thesis.tex"
    home.parent.mkdir(parents=True)
    home.write_text("years of work")
    path = recorded(tmp_path / "deep" / "run.zarr")
    shutil.rmtree(path / "step" / "c")
    (path / "step" / "c").symlink_to(home.parent)
    with pytest.raises(tt.StoreError, match=r"step/c is neither a regular file nor a folder"):
        Run(path)
    assert home.exists()


def test_a_file_with_another_name_is_copied_before_anything_is_written_into_it(
    tmp_path: Path,
) -> None:
    path, backup = recorded(tmp_path / "run.zarr"), tmp_path / "backup"
    shutil.copytree(path, backup, copy_function=os.link)
    before = {file: file.read_bytes() for file in backup.rglob("*") if file.is_file()}
    with Run(path) as run:
        run.append(SMALL, 3)
    assert before == {file: file.read_bytes() for file in backup.rglob("*") if file.is_file()}
    assert all(file.stat().st_nlink == 1 for file in path.rglob("*") if file.is_file())
    assert list(damage(path)) == []


@pytest.mark.parametrize("damaging", DAMAGES, ids=lambda each: each.__name__)
def test_a_damaged_run_is_replaced_and_nothing_beside_it(tmp_path: Path, damaging: Any) -> None:
    path, outside = recorded(tmp_path / "run.zarr"), tmp_path / OUTSIDE
    outside.mkdir()
    (outside / "thesis").write_text("years of work")
    damaging(path, random.Random(0))
    before = {file: file.read_bytes() for file in outside.rglob("*")}
    if path.is_dir():
        remove_run(path)
        assert not path.exists()
    assert before == {file: file.read_bytes() for file in outside.rglob("*")}


@pytest.mark.parametrize("name", ["thesis.tex", "data/c/notes.txt"])
def test_a_damaged_run_that_holds_other_files_is_left(tmp_path: Path, name: str) -> None:
    path = recorded(tmp_path / "run.zarr")
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_text("years of work")
    (path / "zarr.json").write_text("{")
    with pytest.raises(tt.StoreError, match="is damaged"):
        remove_run(path)
    assert (path / name).exists()


def test_a_store_of_zarr_that_is_no_run_is_left(tmp_path: Path) -> None:
    SMALL["rnn"].to_dataset().to_zarr(tmp_path / "run.zarr", zarr_format=3, consolidated=False)
    with pytest.raises(tt.StoreError, match="not a throughtime run"):
        remove_run(tmp_path / "run.zarr")
    assert (tmp_path / "run.zarr" / "zarr.json").exists()


NAMES = [
    "..",
    "a\\b",
    "x\u2028y",
    "\x1b[31mred",
    "step",
    "x" * 300,
    "zarr.json",
    ".hidden",
    "a:b",
    "<img src=x>",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("inner", [False, True])
def test_a_layer_of_any_name_is_recorded_and_comes_back(tmp_path: Path, name: str, inner: bool) -> None:
    leaf = SMALL["rnn"].to_dataset()
    named = xr.DataTree(children={name: xr.DataTree(leaf)})
    tree = xr.DataTree(children={"encoder": named}) if inner else named
    for steps in ((3, 5), (7,)):
        with Run(tmp_path / "run.zarr") as run:
            for step in steps:
                run.append(tree, step)
    opened = tt.open_run(tmp_path / "run.zarr")
    found = (opened.children["encoder"] if inner else opened).children[name].to_dataset()
    assert found["step"].values.tolist() == [3, 5, 7]
    xr.testing.assert_equal(found.isel(step=1).drop_vars("step").compute(), leaf)
    assert list(damage(tmp_path / "run.zarr")) == []
    assert {each.name for each in tmp_path.iterdir()} == {"run.zarr"}


def test_a_zip_bomb_is_refused_from_its_directory(whole: Path, tmp_path: Path) -> None:
    bomb = zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED)
    with bomb, bomb.open("zarr.json", "w") as member:
        member.write((whole / "zarr.json").read_bytes())
        for _ in range(300):
            member.write(b" " * 2**20)
    before = resident()
    with pytest.raises(tt.StoreError, match="would unpack to"):
        tt.open_run(tmp_path / "bomb.zip")
    assert resident() - before < 50e6


def test_a_chunk_that_is_missing_from_a_packed_run_is_found(whole: Path, tmp_path: Path) -> None:
    pack(whole, tmp_path / "packed.zarr")
    assert list(damage(tmp_path / "packed.zarr")) == []
    next((tmp_path / "packed.zarr" / "rnn" / "hidden" / "c").rglob("0/0/0/0")).unlink()
    assert "rnn/hidden of steps 0 to 2 cannot be read" in "; ".join(damage(tmp_path / "packed.zarr"))


def test_a_fifo_does_not_hang_a_command(whole: Path, tmp_path: Path) -> None:
    for seed in range(6):
        path = tmp_path / f"{seed}.zarr"
        shutil.copytree(whole, path)
        fifo(path, random.Random(seed))
        with patience(30):
            result = CliRunner().invoke(app, ["check", str(path)])
        assert result.exit_code == 1
        assert "Traceback" not in result.output


@pytest.mark.parametrize("ending", ["zarr", "nc", "npz", "parquet", "csv"])
def test_an_export_is_written_twice_under_the_name_that_is_printed(
    whole: Path, tmp_path: Path, ending: str
) -> None:
    output = tmp_path / "new" / f"r.{ending}"
    for _ in range(2):
        result = CliRunner().invoke(app, ["export", str(whole), "-o", str(output)])
        assert result.exit_code == 0, result.output
        assert f"{output} is written." in result.output.replace("\n", "")
        assert [each.name for each in output.parent.iterdir()] == [output.name]


def test_an_export_that_contradicts_its_ending_is_refused(whole: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["export", str(whole), "--to", "npz", "-o", str(tmp_path / "r.nc")])
    assert result.exit_code == 1
    assert "which is netcdf, not npz" in " ".join(result.output.split())
    assert not any(tmp_path.iterdir())
    refused = CliRunner().invoke(app, ["export", str(whole), "-o", str(tmp_path / "r")]).output
    assert "names no format" in " ".join(refused.split())
