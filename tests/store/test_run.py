"""A run on disk holds what was appended, whole steps only, and goes on after whatever ended its writer."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import throughtime as tt
from throughtime import testing
from throughtime._store import Run, damage, remove_run
from throughtime._store.lock import Lock

TREES = {
    "decaying": testing.decaying(rate=[0.5, 0.9], steps=12),
    "masked": testing.with_masks([12, 5, 0], steps=12),
    "both ways": testing.bidirectional(samples=2, steps=12),
    "gates": testing.constant_gates(samples=2, steps=12),
    "lags": testing.lag_matrix_of(0.8, samples=2, steps=12),
}


TREES["two layers"] = xr.DataTree.from_dict(
    {"encoder/rnn": TREES["gates"]["rnn"].to_dataset(), "rnn": TREES["both ways"]["rnn"].to_dataset()}
)


def scaled(tree: xr.DataTree, factor: float) -> xr.DataTree:
    """Another capture of the same layout."""
    return tree.map_over_datasets(lambda leaf: leaf.map(lambda v: v * v.dtype.type(factor)))


@pytest.mark.parametrize("name", TREES)
def test_what_is_read_is_what_was_appended(name: str, tmp_path: Path) -> None:
    tree, factors = TREES[name], {0: 1.0, 50: 2.0, 117: 0.0}
    with Run(tmp_path / "run.zarr", attributes={"model": "toy"}) as run:
        for step, factor in factors.items():
            run.append(scaled(tree, factor), step)
        assert run.steps == list(factors)
    opened = tt.open_run(tmp_path / "run.zarr")
    assert opened.attrs["model"] == "toy"
    assert opened["rnn"]["step"].values.tolist() == list(factors)
    for node in tree.leaves:
        for step, factor in factors.items():
            leaf = opened[node.path].to_dataset().sel(step=step).drop_vars("step")
            wanted = scaled(tree, factor)[node.path].to_dataset()
            xr.testing.assert_equal(leaf.compute(), wanted)
            assert {key: leaf.attrs[key] for key in wanted.attrs} == wanted.attrs
            assert {name: leaf[name].dtype for name in leaf} == {name: wanted[name].dtype for name in wanted}
    assert all(
        variable.chunks is not None for variable in opened["rnn"].data_vars.values()
    )  # nothing is read


def test_a_zip_of_a_run_opens(tmp_path: Path) -> None:
    with Run(tmp_path / "run.zarr") as run:
        for step in range(3):
            run.append(scaled(TREES["two layers"], step), step)
    shutil.make_archive(str(tmp_path / "run"), "zip", tmp_path / "run.zarr")
    opened = tt.open_run(tmp_path / "run.zip")
    assert opened["rnn"]["hidden"].chunks is not None
    xr.testing.assert_equal(opened.load(), tt.open_run(tmp_path / "run.zarr").load())
    shutil.make_archive(str(tmp_path / "outer"), "zip", tmp_path, "run.zarr")
    with pytest.raises(tt.StoreError, match=r"no zarr.json at its top.*zip -r"):
        tt.open_run(tmp_path / "outer.zip")


def test_measures_take_a_stored_run(tmp_path: Path) -> None:
    rates = (0.5, 0.9)
    with Run(tmp_path / "run.zarr") as run:
        for step, rate in enumerate(rates):
            run.append(testing.decaying(rate=rate, samples=2, steps=90), step)
    leaf = tt.open_run(tmp_path / "run.zarr")["rnn"]
    horizons = tt.diagnostics.memory_horizon(leaf).transpose("step", "sample")
    np.testing.assert_array_equal(horizons, [[6, 6], [43, 43]])


def test_a_run_is_continued(tmp_path: Path) -> None:
    tree = TREES["decaying"]
    for steps in ((0, 1), (5,), (6, 7)):
        with Run(tmp_path / "run.zarr", attributes={"model": str(steps)}) as run:
            for step in steps:
                run.append(tree, step)
    opened = tt.open_run(tmp_path / "run.zarr")
    assert opened["rnn"]["step"].values.tolist() == [0, 1, 5, 6, 7]
    assert opened.attrs["model"] == "(0, 1)"


@pytest.mark.parametrize("change", ["grows", "thinned", "replaced", "moved"])
def test_a_run_that_changes_after_it_was_opened_never_gives_numbers_of_other_steps(
    change: str, tmp_path: Path
) -> None:
    path = tmp_path / "run.zarr"
    rates = np.linspace(0.2, 0.9, 6)

    def write(rates: np.ndarray, first: int = 0) -> None:
        with Run(path) as run:
            for step, rate in enumerate(rates, first):
                run.append(testing.decaying(rate=rate), step)

    write(rates)
    opened = tt.open_run(path)["rnn"]["hidden_gradient"]
    if change == "grows":
        write(rates / 2, 6)
    elif change == "thinned":
        with Run(path) as run:
            run.thin()
            run.thin()  # file systems give the numbers of removed folders to new ones
    elif change == "replaced":
        remove_run(path)
        write(rates / 2)
    else:
        path.rename(tmp_path / "moved.zarr")
    if change != "grows":
        with pytest.raises(tt.StoreError, match="since it was opened: open it again"):
            opened.load()
        return
    norms = np.linalg.norm(opened.values, axis=-1)[:, 0]
    assert np.allclose(norms[:, -2] / norms[:, -1], rates)


def test_sequences_may_grow(tmp_path: Path) -> None:
    short, long = (testing.decaying(rate=0.5, steps=steps) for steps in (4, 9))
    with Run(tmp_path / "run.zarr") as run:
        for step, tree in enumerate((short, long, short)):
            run.append(tree, step)
    leaf = tt.open_run(tmp_path / "run.zarr")["rnn"].to_dataset()
    assert leaf.sizes["time"] == 9
    assert np.isnan(leaf["hidden"].isel(step=[0, 2], time=slice(4, None))).all()
    assert not leaf["valid"].isel(step=[0, 2], time=slice(4, None)).any()
    xr.testing.assert_equal(leaf["hidden"].isel(step=1).drop_vars("step").compute(), long["rnn"]["hidden"])


class TestWhatDoesNotFit:
    def test_other_variables(self, tmp_path: Path) -> None:
        with Run(tmp_path / "run.zarr") as run:
            run.append(TREES["decaying"], 0)
            with pytest.raises(tt.StoreError, match=r"from those of step 1: .*gate_activation"):
                run.append(TREES["gates"], 1)
            fewer = TREES["decaying"].map_over_datasets(
                lambda leaf: leaf.drop_vars("hidden", errors="ignore")
            )
            with pytest.raises(tt.StoreError, match="rnn/hidden"):
                run.append(fewer, 1)
            run.append(TREES["decaying"], 1)
        assert tt.open_run(tmp_path / "run.zarr")["rnn"].sizes["step"] == 2

    def test_other_dtype(self, tmp_path: Path) -> None:
        with Run(tmp_path / "run.zarr") as run:
            run.append(TREES["decaying"], 0)
            single = TREES["decaying"].map_over_datasets(lambda leaf: leaf.astype("float32"))
            with pytest.raises(tt.StoreError, match=r"is float32 .* it is float64"):
                run.append(single, 1)

    def test_an_earlier_step(self, tmp_path: Path) -> None:
        with Run(tmp_path / "run.zarr") as run:
            run.append(TREES["decaying"], 7)
            with pytest.raises(tt.StoreError, match="Step 7 does not follow step 7"):
                run.append(TREES["decaying"], 7)

    def test_a_second_writer(self, tmp_path: Path) -> None:
        with Run(tmp_path / "run.zarr") as run:
            with pytest.raises(tt.StoreError, match="has a writer already"):
                Run(tmp_path / "run.zarr")
            run.append(TREES["decaying"], 0)
        Run(tmp_path / "run.zarr").close()

    def test_a_file_a_full_folder_and_foreign_zarr(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        with pytest.raises(tt.StoreError, match="is a file"):
            Run(tmp_path / "file")
        with pytest.raises(tt.StoreError, match="holds other files"):
            Run(tmp_path)
        assert (tmp_path / "file").read_text() == "mine"
        xr.Dataset({"a": ("t", [1.0])}).to_zarr(tmp_path / "foreign.zarr", consolidated=False)
        with pytest.raises(tt.StoreError, match="not a throughtime run"):
            Run(tmp_path / "foreign.zarr")
        with pytest.raises(tt.StoreError, match="There is no run"):
            tt.open_run(tmp_path / "none")

    def test_a_newer_layout(self, tmp_path: Path) -> None:
        Run(tmp_path / "run.zarr").close()
        commit = tmp_path / "run.zarr" / "zarr.json"
        document = json.loads(commit.read_text())
        document["attributes"]["throughtime_run"] = 99
        commit.write_text(json.dumps(document))
        for action in (Run, tt.open_run):
            with pytest.raises(tt.StoreError, match=r"^\S+ was written by a newer throughtime"):
                action(tmp_path / "run.zarr")


def test_a_step_that_fails_half_way_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from throughtime._store.stored_array import StoredArray

    tree, path = TREES["gates"], tmp_path / "run.zarr"
    written = StoredArray.append

    def fails(array, rows):
        if array._folder.name == "hidden":
            raise OSError("no space left on device")
        written(array, rows)

    with Run(path) as run:
        for step in (0, 1):  # with nothing committed, and with a step there
            monkeypatch.setattr(StoredArray, "append", fails)
            with pytest.raises(OSError, match="no space"):
                run.append(tree, step)
            monkeypatch.setattr(StoredArray, "append", written)
            run.append(tree, step)
            leaf = tt.open_run(path)["rnn"].to_dataset().isel(step=-1).compute().drop_vars("step")
            xr.testing.assert_equal(leaf, tree["rnn"].to_dataset())
    assert run.steps == [0, 1]


class FullDisk:
    """Lets one of the next writes find no space half way through: the `left`-th, counted from 0."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from throughtime._common import atomic
        from throughtime._store import stored_array

        self.left = -1
        self._write, self._write_into = atomic._write_bytes, stored_array.write_into
        monkeypatch.setattr(atomic, "_write_bytes", self.write)
        monkeypatch.setattr(stored_array, "write_into", self.write_into)

    def write(self, file: str, content: bytes, durable: bool) -> None:
        self._half(lambda part: self._write(file, part, durable), content)

    def write_into(self, file: str, start: int, content: bytes) -> None:
        self._half(lambda part: self._write_into(file, start, part), content)

    def _half(self, write, content):
        self.left -= 1
        if self.left == -1:
            write(content[: len(content) // 2])
            raise OSError(28, "No space left on device")
        write(content)


def test_a_disk_that_is_full_at_any_write_costs_that_step_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file of a step in turn is the one that finds no space, and is half there."""
    tree, path, disk = TREES["both ways"], tmp_path / "run.zarr", FullDisk(monkeypatch)
    with Run(path) as writer:
        writer.append(tree, 0)
        failures = 0
        for at in range(100):
            disk.left = at
            try:
                writer.append(scaled(tree, 2.0), at + 1)
            except OSError:
                failures += 1
                leaf = tt.open_run(path)["rnn"].to_dataset().compute()
                assert leaf["step"].values.tolist() == writer.steps == [0]
                continue
            break
        disk.left = -1
        assert (
            failures == len(list(tree["rnn"].data_vars)) + 3
        )  # its variables, `step`, checksums, the commit
    leaf = tt.open_run(path)["rnn"].to_dataset().compute()
    assert leaf["step"].values.tolist() == [0, failures + 1]
    for factor, place in ((1.0, 0), (2.0, 1)):
        wanted = scaled(tree, factor)["rnn"].to_dataset()
        xr.testing.assert_equal(leaf.isel(step=place).drop_vars("step"), wanted)
    assert not list(path.rglob("*.tmp"))


WRITER = """
import sys
from throughtime import testing
from throughtime._store import Run

with Run(sys.argv[1]) as run:
    tree = testing.constant_gates(samples=2, steps=12)
    for step in range(len(run.steps), 10_000):
        run.append(tree.map_over_datasets(lambda leaf: leaf.map(lambda v: v.astype(float) * 0 + step)), step)
        print(step, flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no kill -9 here")
def test_a_killed_writer_loses_no_committed_step(tmp_path: Path) -> None:
    path, rng, steps = tmp_path / "run.zarr", random.Random(0), 0
    for _ in range(int(os.environ.get("THROUGHTIME_KILLS", "6"))):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        ) as writer:
            told = [int(writer.stdout.readline()) for _ in range(rng.randint(1, 4))]
            time.sleep(rng.random() * 0.05)
            writer.kill()
            told += [int(line) for line in writer.stdout.read().splitlines() if line.strip()]
        opened = tt.open_run(path)["rnn"].to_dataset().compute()
        assert opened.sizes["step"] in (told[-1] + 1, told[-1] + 2)  # committed, perhaps not yet told
        assert opened.sizes["step"] > steps
        steps = opened.sizes["step"]
        for name in opened.data_vars:
            per_step = opened[name].transpose("step", ...).values.reshape(steps, -1)
            np.testing.assert_array_equal(
                per_step, np.broadcast_to(np.arange(steps)[:, None], per_step.shape)
            )


def test_plain_xarray_reads_a_closed_run_without_the_roots_word(tmp_path: Path) -> None:
    with Run(tmp_path / "run.zarr") as run:
        for step in range(3):
            run.append(scaled(TREES["gates"], step), step)
    left = xr.open_datatree(tmp_path / "run.zarr", engine="zarr", consolidated=False)
    opened = tt.open_run(tmp_path / "run.zarr")  # a subclass of DataTree
    xr.testing.assert_equal(left.load(), xr.DataTree.from_dict(opened.load().to_dict()))


class Model:
    """What a run has to hold, as a list in memory."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.values: list[np.ndarray] = []

    def read(self) -> np.ndarray:
        sizes = np.max([each.shape for each in self.values], axis=0)
        whole = np.full((len(self.values), *sizes), np.nan)
        for row, each in zip(whole, self.values, strict=True):
            row[tuple(map(slice, each.shape))] = each
        return whole


def failing(way):
    """Write, and then find that there is no space; `step` alone has some."""

    def fails(array, *arguments):
        is_written = way(array, *arguments) is not False
        if is_written and array.dims != ("step",):
            raise OSError("no space left on device")
        return is_written

    return fails


def failed(run: Run, tree: xr.DataTree, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from throughtime._store.stored_array import StoredArray

    with monkeypatch.context() as patch:
        for name in ("_write", "_write_in_place"):
            patch.setattr(StoredArray, name, failing(getattr(StoredArray, name)))
        with pytest.raises(OSError, match="no space"):
            run.append(tree, step)


@pytest.mark.parametrize("seed", [0, *(pytest.param(each, marks=pytest.mark.slow) for each in (1, 2, 3))])
@pytest.mark.parametrize("width", [1, 300, 9000])  # 256 steps to a chunk, some, one
def test_any_history_of_steps_is_read_back(
    seed: int, width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Appended, grown, failed, thinned, closed and opened again, in any order."""
    rng, model, path, step = np.random.default_rng(seed), Model(), tmp_path / "run.zarr", 0

    def one(grown: bool) -> xr.DataTree:
        size = 3 + int(rng.integers(1, 4)) * grown
        leaf = {"a": (("time", "unit"), rng.normal(size=(size, width))), "b": ((), float(step))}
        return xr.DataTree.from_dict({"rnn": xr.Dataset(leaf)})

    run = Run(path)
    for _ in range(120):
        action = rng.choice(["append", "grow", "fail", "thin", "reopen"], p=[0.7, 0.05, 0.1, 0.05, 0.1])
        step += 1
        tree = one(grown=action == "grow" or (action == "fail" and rng.random() < 0.5))
        if action in ("append", "grow"):
            run.append(tree, step)
            model.steps.append(step)
            model.values.append(tree["rnn"]["a"].values)
        elif action == "fail":
            failed(run, tree, step, monkeypatch)
        elif action == "thin":
            sizes = model.read().shape if model.values else None
            run.thin()
            model.steps, model.values = model.steps[::2], model.values[::2]
            if sizes:  # what had grown stays as large
                model.values[:1] = [
                    np.pad(
                        model.values[0],
                        [(0, sizes[1] - len(model.values[0])), (0, 0)],
                        constant_values=np.nan,
                    )
                ]
        else:
            run.close()
            run = Run(path)
        assert run.steps == model.steps
    run.close()
    leaf = tt.open_run(path)["rnn"].to_dataset().compute()
    assert leaf["step"].values.tolist() == leaf["b"].values.tolist() == model.steps
    np.testing.assert_array_equal(leaf["a"], model.read())


def test_no_second_writer_gets_in_between_the_two_moves_of_a_thinning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, moved, told = tmp_path / "run.zarr", Path.rename, []

    def meets(self: Path, target: Path) -> Path:
        with pytest.raises(tt.StoreError, match="has a writer already") as caught:
            Run(path)
        told.append(caught)
        result = moved(self, target)
        with pytest.raises(tt.StoreError, match="has a writer already"):
            Run(path)
        return result

    with Run(path) as run:
        for step in range(5):
            run.append(TREES["decaying"], step)
        monkeypatch.setattr(Path, "rename", meets)
        run.thin()
        monkeypatch.undo()
        assert (run.steps, len(told)) == ([0, 2, 4], 2)
        run.append(TREES["decaying"], 7)
    assert tt.open_run(path)["rnn"]["step"].values.tolist() == [0, 2, 4, 7]
    assert {each.name for each in tmp_path.iterdir()} == {"run.zarr"}


@pytest.mark.parametrize("moves", [0, 1])
def test_a_thinning_that_died_between_its_moves_is_mended(
    moves: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, moved, made = tmp_path / "run.zarr", Path.rename, []

    def dies(self: Path, target: Path) -> Path:
        if len(made) == moves:
            raise KeyboardInterrupt
        made.append(target)
        return moved(self, target)

    run = Run(path)
    for step in range(5):
        run.append(TREES["decaying"], step)
    monkeypatch.setattr(Path, "rename", dies)
    with pytest.raises(KeyboardInterrupt):
        run.thin()
    monkeypatch.undo()
    run._lock.release()  # as the end of the process does
    with Run(path) as again:
        assert again.steps == [0, 1, 2, 3, 4]
        again.append(TREES["decaying"], 5)
    assert tt.open_run(path)["rnn"].sizes["step"] == 6


class TestVariablesOfTheRoot:
    """What a training loop tells may begin late and be left out; layers have the same variables always."""

    def tree(self, **told: float) -> xr.DataTree:
        tree = TREES["two layers"].copy()
        tree.dataset = tree.to_dataset(inherit=False).assign(told)
        return tree

    def test_are_missing_where_they_were_not_told(self, tmp_path: Path) -> None:
        steps: list[dict[str, float]] = [{}, {"one": 1.0}, {"two": 2.0}, {}, {"one": 3.0, "two": 4.0}]
        for place, told in enumerate(steps):
            with Run(tmp_path / "run.zarr") as run:  # each by a writer of its own
                run.append(self.tree(**told), place)
        with Run(tmp_path / "run.zarr") as run:
            for place in range(5, 700):  # more than a chunk
                run.append(self.tree(one=float(place)), place)
        opened = tt.open_run(tmp_path / "run.zarr")
        np.testing.assert_array_equal(opened["one"][:6], [np.nan, 1, np.nan, np.nan, 3, 5])
        np.testing.assert_array_equal(opened["two"][:6], [np.nan, np.nan, 2, np.nan, 4, np.nan])
        np.testing.assert_array_equal(opened["one"][5:], range(5, 700))
        assert opened["step"].values.tolist() == opened["rnn"]["step"].values.tolist() == list(range(700))
        assert [leaf.path for leaf in opened.leaves] == [leaf.path for leaf in self.tree().leaves]
        assert list(damage(tmp_path / "run.zarr")) == []

    def test_have_checksums_from_where_they_begin(self, tmp_path: Path) -> None:
        path = tmp_path / "run.zarr"
        with Run(path) as run:
            for place in range(6):
                told = {
                    f"number_{k:02d}": float(k) for k in range(35 * place)
                }  # 64 share a chunk of checksums
                run.append(self.tree(**told), place)
            run.thin()
        assert list(damage(path)) == []
        chunk = path / "number_60" / "c" / "0"
        content = bytearray(chunk.read_bytes())
        content[8 + 3] ^= 1  # of the second record, which is that of step 2
        chunk.write_bytes(content)
        assert list(damage(path)) == ["number_60 of step 2 does not match its checksum"]

    def test_that_come_late_with_a_step_that_fails_leave_no_trace(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Run(tmp_path / "run.zarr") as run:
            run.append(self.tree(), 0)
            with monkeypatch.context() as patch:
                patch.setattr("throughtime._store.run.put", lambda *_: 1 / 0)
                with pytest.raises(ZeroDivisionError):
                    run.append(self.tree(late=1.0), 1)
            assert "late" not in tt.open_run(tmp_path / "run.zarr")
            run.append(self.tree(late=2.0), 2)
        np.testing.assert_array_equal(tt.open_run(tmp_path / "run.zarr")["late"], [np.nan, 2.0])

    def test_do_not_excuse_a_layer(self, tmp_path: Path) -> None:
        with Run(tmp_path / "run.zarr") as run:
            run.append(self.tree(one=1.0), 0)
            with pytest.raises(tt.StoreError, match=r"The variables of .* differ"):
                run.append(TREES["gates"], 1)
            with pytest.raises(tt.StoreError, match="one of step 1 is float32"):
                run.append(self.tree(one=np.float32(1.0)), 1)


def _write_once(path: str, count: int) -> int:
    """Open and close a run as often as it is free; count how often two writers were inside at once."""
    clashes = 0
    inside = Path(path).with_name("inside")
    for _ in range(count):
        try:
            lock = Lock(Path(path))
        except tt.StoreError:
            continue
        try:
            inside.touch(exist_ok=False)
            inside.unlink()
        except FileExistsError:
            clashes += 1
        lock.release()
    return clashes


def test_a_lock_is_gone_after_use_and_never_has_two_holders(tmp_path: Path) -> None:
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        tried = [pool.submit(_write_once, str(tmp_path / "run.zarr"), 400) for _ in range(3)]
        assert [each.result() for each in tried] == [0, 0, 0]
    assert not list(tmp_path.iterdir())
