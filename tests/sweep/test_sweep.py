"""A sweep against one capture of all its data, and against itself on other executors."""

from __future__ import annotations

import errno
import json
import multiprocessing
import pickle
import shutil
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
import xarray as xr
from tests.sweep.networks import LAG, Last, batch, made, mse, shards, together, total

import throughtime as tt
from throughtime._monitor.sketch import ACCURACY
from throughtime._sweep.parts import Parts

KERNEL = "recurrent_kernel_gradient_norm"


def pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def scaled(output: Any, y: Any, factor: float) -> Any:
    return factor * mse(output, y)


def enclosing(factor: float) -> Any:
    return lambda output, y: scaled(output, y, factor)


def assert_identical(one: xr.DataTree, other: xr.DataTree) -> None:
    assert [node.path for node in one.leaves] == [node.path for node in other.leaves]
    for node in one.leaves:
        xr.testing.assert_identical(node.to_dataset(), other[node.path].to_dataset())


class Reversed:
    """Runs what was submitted last first."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Any, Any]] = []

    def submit(self, function: Any, *arguments: Any) -> Any:
        future: Future[Any] = Future()
        self.waiting.append((future, function, arguments))
        executor = self

        class Waiting:
            def result(self) -> Any:
                while executor.waiting:
                    each, called, given = executor.waiting.pop()
                    try:
                        each.set_result(called(*given))
                    except Exception as error:
                        each.set_exception(error)
                return future.result()

        return Waiting()


@pytest.mark.parametrize("loss", [mse, total])
def test_sums_are_those_of_one_capture(tmp_path: Path, loss: Any) -> None:
    x, y = together()
    swept = tt.sweep(made(), shards(tmp_path), loss=loss, to=tmp_path / "sweep")["rnn"].isel(step=0)
    whole = tt.capture(made(), x, y, loss=loss)["rnn"]
    np.testing.assert_allclose(swept["loss"], whole["loss"], rtol=1e-6)
    for name in ("kernel", "recurrent_kernel", "bias"):
        exact = np.linalg.norm(np.moveaxis(whole[f"{name}_gradient"].values, -2, 0).reshape(3, -1), axis=1)
        np.testing.assert_allclose(swept[f"{name}_gradient_norm"], exact, rtol=2e-6)
    saturated = tt.diagnostics.saturation(whole).mean("unit")
    np.testing.assert_allclose(swept["saturation_left"], saturated["left"], rtol=1e-6)
    np.testing.assert_allclose(swept["saturation_right"], saturated["right"], rtol=1e-6)
    norms = np.linalg.norm(whole["hidden_gradient"].values.astype(np.float64), axis=-1)
    median = np.quantile(norms, 0.5, axis=0, method="lower")
    np.testing.assert_allclose(swept["hidden_gradient_norm"].sel(quantile=0.5), median, rtol=ACCURACY * 1.01)
    ratios = norms[:, ::-1] / norms[:, -1:]
    np.testing.assert_allclose(swept["lag_ratio"], np.median(ratios, axis=0), rtol=ACCURACY * 1.01)
    assert swept["lag_ratio_samples"].values.tolist() == [len(x)] * 12


def test_timesteps_are_those_of_one_capture(tmp_path: Path) -> None:
    x, y = together()
    settings = {"loss": mse, "quantities": "timestep", "dependency_length": LAG}
    tree = tt.sweep(made(), shards(tmp_path), to=tmp_path / "sweep", **settings)
    swept, whole = tree["rnn"].isel(step=0), tt.capture(made(), x, y, loss=mse)
    norms = np.linalg.norm(whole["rnn"]["hidden_gradient"].values.astype(np.float64), axis=-1)
    np.testing.assert_allclose(swept["hidden_gradient_norm"], norms, rtol=1e-6)
    ratios = np.log(norms[:, ::-1] / norms[:, -1:])
    np.testing.assert_allclose(swept["lag_ratio"], np.exp(np.median(ratios, axis=0)), rtol=1e-6)
    assert swept["shard"].values.tolist() == [number for number in range(4) for _ in range(6 + number)]
    mine, exact = (tt.diagnose(each, dependency_length=LAG).layers["rnn"] for each in (tree, whole))
    assert (mine.horizon, mine.horizon_interval) == (exact.horizon, exact.horizon_interval)
    assert mine.share.interval == pytest.approx(exact.share.interval, rel=1e-6)
    assert mine.use.n == len(x)
    notes = [tt.diagnose(each, dependency_length=LAG).notes for each in (tree, whole)]
    assert notes[0] == notes[1]  # the model reads one step


def test_checkpoints_are_selected_by_name(tmp_path: Path) -> None:
    files = [tmp_path / f"seed{seed}" / "last.pt" for seed in range(2)]
    for path in files:
        path.parent.mkdir()
        torch.save(Last().state_dict(), path)
    found = tt.sweep(made(), batch(), loss=mse, checkpoints=files, to=tmp_path / "sweep")["rnn"]
    assert found["checkpoint"].values.tolist() == ["seed0/last.pt", "seed1/last.pt"]
    second, (x, y) = made(), batch()
    second.load_state_dict(torch.load(files[1]))
    one = found.to_dataset().sel(checkpoint="seed1/last.pt")
    assert float(one["loss"]) == pytest.approx(mse(second(x), y).item(), rel=1e-5)


def test_the_executor_and_the_order_change_no_bit(tmp_path: Path) -> None:
    data, settings = together(), {"loss": mse, "shard_size": 3, "dependency_length": LAG}
    weights = {"first": made().state_dict(), "second": Last().state_dict()}
    serial = tt.sweep(made(), data, checkpoints=weights, to=tmp_path / "serial", **settings)
    assert serial["rnn"]["checkpoint"].values.tolist() == ["first", "second"]
    backwards = {"executor": Reversed(), "to": tmp_path / "reversed"}
    assert_identical(serial, tt.sweep(made(), data, checkpoints=weights, **backwards, **settings))
    with pool(2) as executor:
        parallel = {"executor": executor, "to": tmp_path / "two"}
        assert_identical(serial, tt.sweep(made, data, checkpoints=weights, **parallel, **settings))


def test_four_processes_and_a_shard_that_is_tried_again_change_no_bit(tmp_path: Path) -> None:
    serial = tt.sweep(made(), shards(tmp_path, 10), loss=mse, to=tmp_path / "serial")
    (tmp_path / "raise-1").write_text("once")
    with pool(4) as executor:
        given = {"loss": mse, "executor": executor, "to": tmp_path / "four"}
        assert_identical(serial, tt.sweep(made, shards(tmp_path, 10), **given))
    assert not (tmp_path / "raise-1").exists()


def test_parts_that_no_worker_has_added_up_are_added_up_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serial = tt.sweep(made(), together(), loss=mse, to=tmp_path / "serial", shard_size=3)
    monkeypatch.setattr(Parts, "add_up", lambda *_: None)
    assert_identical(serial, tt.sweep(made(), together(), loss=mse, to=tmp_path / "late", shard_size=3))


def test_a_part_that_was_added_to_others_counts_once(tmp_path: Path) -> None:
    serial = tt.sweep(made(), shards(tmp_path, 10), loss=mse, to=tmp_path / "serial")
    (tmp_path / "raise-9").write_text("always")
    with pytest.warns(tt.ThroughTimeWarning, match="shard 9 of current"):
        tt.sweep(made(), shards(tmp_path, 10), loss=mse, to=tmp_path / "again")
    parts = Parts(tmp_path / "again", 0, 10)
    assert parts.file(1, 0).exists()
    assert not parts.file(0, 0).exists()
    shutil.copy(parts.file(0, 8), parts.file(0, 0))  # as a worker leaves it that does its task twice
    (tmp_path / "raise-9").unlink()
    assert_identical(serial, tt.sweep(made(), shards(tmp_path, 10), loss=mse, to=tmp_path / "again"))


def test_dask_gives_the_same(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    data = together()
    serial = tt.sweep(made(), data, loss=mse, to=tmp_path / "serial", shard_size=9)
    cluster = distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None)
    with cluster, distributed.Client(cluster) as client:
        found = tt.sweep(
            made, data, loss=mse, to=tmp_path / "dask", shard_size=9, executor=client.get_executor()
        )
    assert_identical(serial, found)


@pytest.mark.slow
def test_killed_workers_of_dask_cost_nothing(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    serial = tt.sweep(made(), shards(tmp_path), loss=mse, to=tmp_path / "serial")
    for shard in (1, 3):
        (tmp_path / f"kill-{shard}").write_text("once")
    cluster = distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None)
    with cluster, distributed.Client(cluster) as client:
        executor = client.get_executor()
        found = tt.sweep(made, shards(tmp_path), loss=mse, to=tmp_path / "dask", executor=executor)
    assert not list(tmp_path.glob("kill-*"))
    assert_identical(serial, found)


def test_a_killed_worker_costs_no_finished_shard(tmp_path: Path) -> None:
    serial = tt.sweep(made(), shards(tmp_path), loss=mse, to=tmp_path / "serial")
    for mark in tmp_path.glob("loaded-*"):
        mark.unlink()
    (tmp_path / "kill-2").write_text("once")
    with pool(1) as executor, pytest.raises(tt.SweepError, match="sweep again with a new executor"):
        tt.sweep(made, shards(tmp_path), loss=mse, to=tmp_path / "killed", executor=executor)
    with pytest.raises(tt.SweepError, match="not finished"):
        tt.open_sweep(tmp_path / "killed")
    with pool(1) as executor:
        found = tt.sweep(made, shards(tmp_path), loss=mse, to=tmp_path / "killed", executor=executor)
    assert_identical(serial, found)
    loads = [len(list(tmp_path.glob(f"loaded-{shard}-*"))) for shard in range(4)]
    assert loads == [1, 1, 2, 1]  # each process that loaded it has left a mark


def test_a_task_that_fails_once_is_tried_again(tmp_path: Path) -> None:
    serial = tt.sweep(made(), shards(tmp_path), loss=mse, to=tmp_path / "serial")
    (tmp_path / "raise-1").write_text("once")
    assert_identical(serial, tt.sweep(made(), shards(tmp_path), loss=mse, to=tmp_path / "again"))


def test_a_task_that_fails_is_named_and_can_be_repeated(tmp_path: Path) -> None:
    serial = tt.sweep(made(), shards(tmp_path), loss=mse, to=tmp_path / "serial")
    (tmp_path / "raise-1").write_text("always")
    with pytest.warns(tt.ThroughTimeWarning, match="shard 1 of current: OSError: the disk is away"):
        found = tt.sweep(made(), shards(tmp_path), loss=mse, to=tmp_path / "failed")
    assert [each["shard"] for each in json.loads(found.attrs["failed"])] == [1]
    assert found["rnn"]["lag_ratio_samples"].values[0, 0] == 6 + 8 + 9
    (tmp_path / "raise-1").unlink()
    assert_identical(serial, tt.sweep(made(), shards(tmp_path), loss=mse, to=tmp_path / "failed"))


def test_the_verdict_is_that_on_all_samples(tmp_path: Path) -> None:
    x, y = batch(256)
    model = made()
    optimizer = torch.optim.Adam(model.parameters(), 0.03)
    for _ in range(200):
        optimizer.zero_grad()
        mse(model(x), y).backward()
        optimizer.step()
    weights = {"untrained": made().state_dict(), "trained": model.state_dict()}
    settings = {"loss": mse, "dependency_length": LAG}
    swept = tt.sweep(model, (x, y), checkpoints=weights, to=tmp_path / "s", shard_size=64, **settings)
    whole = tt.diagnose(model, x, y, **settings)
    found = tt.diagnose(swept, dependency_length=LAG)
    assert found.verdict == whole.verdict == "uses"
    mine, exact = found.layers["rnn"], whole.layers["rnn"]
    assert mine.reach.value == pytest.approx(exact.reach.value, rel=0.02)
    assert mine.use.n == 256
    assert mine.use.interval[0] < exact.use.value < mine.use.interval[1]
    before = tt.diagnose(swept, step=0, dependency_length=LAG)
    assert before.verdict == tt.diagnose(made(), x, y, **settings).verdict != "uses"


class Turned(Last):
    """Reads the newest input first; its outputs are in that order."""

    def forward(self, x: Any) -> Any:
        return self.head(self.rnn(x.flip(1))[0])


@pytest.mark.parametrize("step", [slice(-1, None), slice(None)])
def test_the_use_of_a_model_that_reverses_its_inputs(tmp_path: Path, step: slice) -> None:
    torch.manual_seed(0)
    model, (x, _) = Turned(), batch(64)
    with torch.no_grad():
        model.rnn.bias_ih_l0[5:10] += 2  # of the update gate, so that the memory is long
        y = model(x)[:, step] + 0.01 * torch.randn(64, 1, 1)

    def loss(output: Any, y: Any) -> Any:
        return mse(output[:, step], y)

    swept = tt.sweep(model, (x, y), loss=loss, to=tmp_path / "s", dependency_length=LAG)
    exact = tt.diagnose(model, x, y, loss=loss, dependency_length=LAG).layers["rnn"].use
    mine = tt.diagnose(swept, dependency_length=LAG).layers["rnn"].use
    assert 0 < exact.interval[0] < mine.value < exact.interval[1] < 0.9, "older inputs matter less"


def test_a_shard_that_cannot_show_the_order_of_time_leaves_it_to_others(tmp_path: Path) -> None:
    """One sample has nobody to exchange inputs with, whichever worker sees it first."""
    torch.manual_seed(0)
    model, (x, _) = Turned(), batch(65)
    with torch.no_grad():
        model.rnn.bias_ih_l0[5:10] += 2
        y = model(x)[:, -1:] + 0.01 * torch.randn(65, 1, 1)

    def loss(output: Any, y: Any) -> Any:
        return mse(output[:, -1:], y)

    data = [(x[:1], y[:1]), (x[1:], y[1:])]
    settings = {"loss": loss, "dependency_length": LAG}
    serial = tt.sweep(model, data, to=tmp_path / "serial", **settings)
    assert_identical(serial, tt.sweep(model, data, to=tmp_path / "other", executor=Reversed(), **settings))
    exact = tt.diagnose(model, x[1:], y[1:], loss=loss, dependency_length=LAG).layers["rnn"].use
    mine = tt.diagnose(serial, dependency_length=LAG).layers["rnn"].use
    assert exact.interval[0] < mine.value < exact.interval[1]


@pytest.mark.parametrize("several", [lambda y: {"y": y}, lambda y: [y, y], lambda y: (y, y[:, 0])])
def test_several_arrays_of_labels_at_each_step(tmp_path: Path, several: Any) -> None:
    """Use is not measured; the rest is that of the same loss with one array."""

    def of_several(output: Any, y: Any) -> Any:
        return mse(output, y["y"] if isinstance(y, dict) else y[0])

    torch.manual_seed(0)
    model, (x, _) = Turned(), batch(16)
    one = tt.sweep(model, (x, x[..., :1]), loss=mse, to=tmp_path / "one", dependency_length=LAG)
    data = (x, several(x[..., :1]))
    found = tt.sweep(model, data, loss=of_several, to=tmp_path / "several", dependency_length=LAG)
    for name in ("loss", "lag_ratio", KERNEL):
        np.testing.assert_allclose(found["rnn"][name], one["rnn"][name], rtol=1e-6)
    assert "use" in one["rnn"]
    assert "use" not in found["rnn"]


def test_the_model_keeps_its_weights(tmp_path: Path) -> None:
    model = made()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    other = {"other": Last().state_dict()}
    tt.sweep(model, batch(), loss=mse, checkpoints=other, to=tmp_path / "sweep")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert not any(value.grad is not None for value in model.parameters())


def test_a_dataset_is_a_shard_a_batch(tmp_path: Path) -> None:
    x, y = batch(16)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=8)
    found = tt.sweep(made(), loader, loss=mse, to=tmp_path / "loader")
    assert_identical(found, tt.sweep(made(), (x, y), loss=mse, to=tmp_path / "arrays", shard_size=8))
    assert {each.name for each in (tmp_path / "loader").iterdir()} == {"sweep.json", "run.zarr"}


def test_runs_know_sweeps(tmp_path: Path) -> None:
    weights = [made().state_dict(), Last().state_dict()]
    found = tt.sweep(made(), batch(16), loss=mse, checkpoints=weights, to=tmp_path / "sweep")
    assert len(tt.diagnose(found).history.records) == 2
    assert found["rnn"]["checkpoint"].values.tolist() == ["0", "1"]
    assert tt.plots.training(found).panels
    assert tt.plots.evolution(found).panels
    both = [tt.diagnose(found, step=step, dependency_length=LAG) for step in (0, 1)]
    assert tt.compare(*both).to_dataframe()["change"].notna().any()
    written = tt.report(found, tmp_path / "report.html")
    assert Path(written or tmp_path / "report.html").stat().st_size > 10_000


class TestErrors:
    def test_another_sweep_in_the_folder(self, tmp_path: Path) -> None:
        tt.sweep(made(), batch(), loss=mse, to=tmp_path / "sweep")
        with pytest.raises(tt.SweepError, match="holds another sweep, which differs in data"):
            tt.sweep(made(), batch(seed=1), loss=mse, to=tmp_path / "sweep")

    def test_weights_or_a_loss_that_changed_since(self, tmp_path: Path) -> None:
        model, to = made(), tmp_path / "sweep"
        before = tt.sweep(model, batch(), loss=mse, to=to)["rnn"]["loss"].values
        assert np.array_equal(tt.sweep(model, batch(), loss=mse, to=to)["rnn"]["loss"].values, before)
        with torch.no_grad():
            model.rnn.weight_hh_l0 *= 2
        for checkpoints in (None, {"current": model.state_dict()}):
            with pytest.raises(tt.SweepError, match="holds another sweep, which differs in checkpoints"):
                tt.sweep(model, batch(), checkpoints=checkpoints, loss=mse, to=to)
        with pytest.raises(tt.SweepError, match="which differs in loss"):
            tt.sweep(made(), batch(), loss=lambda *each: 2 * mse(*each), to=to)

    @pytest.mark.parametrize(
        "losses",
        [
            [lambda output, y: 2 * mse(output, y), lambda output, y: 3 * mse(output, y)],
            [lambda output, y: 2 * mse(output, y), lambda output, y: 2 * total(output, y)],
            [partial(scaled, factor=1), partial(scaled, factor=3)],
            [enclosing(1), enclosing(3)],
            [lambda output, y, factor=factor: scaled(output, y, factor=factor) for factor in (1, 3)],
        ],
        ids=["constant", "function", "partial", "enclosed", "default"],
    )
    def test_another_loss_of_the_same_name(self, tmp_path: Path, losses: list[Any]) -> None:
        given = {"to": tmp_path / "sweep"}
        found = tt.sweep(made(), batch(), loss=losses[0], **given)
        for same in (losses[0], pickle.loads(cloudpickle.dumps(losses[0]))):
            assert_identical(found, tt.sweep(made(), batch(), loss=same, **given))
        with pytest.raises(tt.SweepError, match="which differs in loss"):
            tt.sweep(made(), batch(), loss=losses[1], **given)

    def test_no_such_layer_is_an_error_before_any_task(self, tmp_path: Path) -> None:
        with pytest.raises(tt.LayerNotFoundError, match="no layer 'lower'"):
            tt.sweep(made(), shards(tmp_path), loss=mse, layers="lower", to=tmp_path / "sweep")
        assert list(tmp_path.iterdir()) == []

    def test_other_files_in_the_folder(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").touch()
        with pytest.raises(tt.SweepError, match="holds other files"):
            tt.sweep(made(), batch(), loss=mse, to=tmp_path)

    def test_shards_of_other_lengths(self, tmp_path: Path) -> None:
        loads = [batch, lambda: batch(steps=9)]
        with pytest.raises(tt.BatchError, match=r"Parts of the data differ in .* Pad all of them"):
            tt.sweep(made(), loads, loss=mse, to=tmp_path / "sweep")

    def test_a_shard_without_labels(self, tmp_path: Path) -> None:
        loads = [batch, lambda: batch()[0]]
        with pytest.warns(tt.ThroughTimeWarning, match="shard 1 of current: SweepError: .* no labels"):
            tt.sweep(made(), loads, loss=mse, to=tmp_path / "sweep")

    def test_a_shard_that_is_empty(self, tmp_path: Path) -> None:
        loads = [batch, lambda: tuple(each[:0] for each in batch())]
        with pytest.warns(tt.ThroughTimeWarning, match="shard 1 of current: BatchError"):
            found = tt.sweep(made(), loads, loss=mse, to=tmp_path / "sweep")
        assert found["rnn"]["lag_ratio_samples"].values[0, 0] == 8

    def test_a_full_disk_costs_the_shard_and_the_rest_is_done(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        serial = tt.sweep(made(), shards(tmp_path), loss=mse, to=tmp_path / "serial")
        write, written = Path.write_bytes, []

        def full(path: Path, data: bytes) -> None:
            written.append(path.name)
            if "-0-000002" in path.name:
                write(path, data[:2])
                raise OSError(errno.ENOSPC, "No space left on device")
            write(path, data)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "write_bytes", full)
            with pytest.warns(tt.ThroughTimeWarning, match=r"shard 2 of current: StoreError.*No space"):
                found = tt.sweep(made(), shards(tmp_path), loss=mse, to=tmp_path / "full")
        assert len([name for name in written if ".npz" in name]) == 4 + 1  # shards, one again
        assert found["rnn"]["lag_ratio_samples"].values[0, 0] == 6 + 7 + 9
        assert_identical(serial, tt.sweep(made(), shards(tmp_path), loss=mse, to=tmp_path / "full"))

    def test_a_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(tt.StoreError, match="pass another folder"):
            tt.sweep(made(), batch(), loss=mse, to=tmp_path / "file" / "sweep")

    def test_workers_with_another_version(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("throughtime._sweep.engine.__version__", "0.0.1")
        with pytest.raises(tt.SweepError, match=r"A worker has throughtime .*, the caller 0.0.1"):
            tt.sweep(made, batch(), loss=mse, executor=Reversed(), to=tmp_path / "sweep")

    def test_workers_without_throughtime(self, tmp_path: Path) -> None:
        class Elsewhere:
            def submit(self, function: Any, *arguments: Any) -> Any:
                future: Future[Any] = Future()
                future.set_exception(ModuleNotFoundError("No module named 'throughtime'"))
                return future

        with pytest.raises(tt.SweepError, match=r"workers cannot import throughtime: .* Install it there"):
            tt.sweep(made, batch(), loss=mse, executor=Elsewhere(), to=tmp_path / "sweep")

    def test_nothing_at_all(self, tmp_path: Path) -> None:
        with pytest.raises(tt.SweepError, match="empty or used up"):
            tt.sweep(made(), iter(()), loss=mse, to=tmp_path / "sweep")
        with pytest.raises(tt.SweepError, match=r"data= is a tuple .* This is a int"):
            tt.sweep(made(), 3, loss=mse, to=tmp_path / "other")
        with pytest.raises(tt.SweepError, match="The data have no labels"):
            tt.sweep(made(), (batch()[0], None), loss=mse, to=tmp_path / "third")

    def test_a_checkpoint_that_does_not_fit(self, tmp_path: Path) -> None:
        weights = {"fits": made().state_dict(), "other": Last(units=7).state_dict()}
        with pytest.warns(tt.ThroughTimeWarning, match="shard 0 of other: RuntimeError"):
            found = tt.sweep(made(), batch(), loss=mse, checkpoints=weights, to=tmp_path / "sweep")
        assert found["rnn"]["checkpoint"].values.tolist() == ["fits"]

    def test_no_such_checkpoint(self, tmp_path: Path) -> None:
        with pytest.raises(tt.SweepError, match=r"There is no checkpoint .*gone\.pt"):
            tt.sweep(made(), batch(), loss=mse, checkpoints=[tmp_path / "gone.pt"], to=tmp_path / "sweep")

    def test_an_unknown_level(self, tmp_path: Path) -> None:
        with pytest.raises(tt.SweepError, match=r"quantities=.timesteps.*expected one of summary, timestep"):
            tt.sweep(made(), batch(), loss=mse, quantities="timesteps", to=tmp_path / "sweep")

    def test_no_executor(self, tmp_path: Path) -> None:
        with pytest.raises(tt.SweepError, match="needs a method submit"):
            tt.sweep(made(), batch(), loss=mse, executor=4, to=tmp_path / "sweep")

    def test_forked_processes(self, tmp_path: Path) -> None:
        forking = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
        with forking, pytest.raises(tt.SweepError, match='get_context\\("spawn"\\)'):
            tt.sweep(made, batch(), loss=mse, executor=forking, to=tmp_path / "sweep")

    def test_a_model_that_cannot_be_sent(self, tmp_path: Path) -> None:
        model = made()
        model.file = (tmp_path / "open").open("w")
        with model.file, pytest.raises(tt.SweepError, match="Pass a function that makes the model"):
            tt.sweep(model, batch(), loss=mse, executor=Reversed(), to=tmp_path / "sweep")

    def test_every_task_fails(self, tmp_path: Path) -> None:
        (tmp_path / "raise-0").write_text("always")
        with pytest.raises(tt.SweepError, match="Every task of the sweep failed"):
            tt.sweep(made(), shards(tmp_path, 1), loss=mse, to=tmp_path / "sweep")
