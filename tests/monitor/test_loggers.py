"""What a monitor writes to its loggers, read back with the libraries that users use."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util
from tests.monitor.loops import BATCH, MSE, made, watched

import throughtime as tt
from throughtime.loggers import Record

LOSS = "detail/rnn/loss"
BACKWARD = "detail/rnn/backward"


class Kept:
    """A logger as users write them."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def write(self, record: Record) -> None:
        self.records.append(record)


class TestRecord:
    def test_numbers_are_those_of_the_run(self, tmp_path: Path) -> None:
        logger = Kept()
        run, _ = watched(tmp_path, made(bidirectional=True), 4, every=2, loggers=logger)
        leaf = run["rnn"].to_dataset().compute()
        assert [record.step for record in logger.records] == [0, 2, 4]
        last = logger.records[-1].numbers
        norms = leaf["hidden_gradient_norm"].sel(direction="backward", quantile=0.5, step=4)
        assert last[f"{BACKWARD}/hidden_gradient_norm_last"] == float(norms[-1])
        assert last[f"{BACKWARD}/hidden_gradient_norm_first"] == float(norms[0])
        weights = leaf["kernel_norm"].sel(direction="backward", gate="forget", step=4)
        assert last[f"{BACKWARD}/kernel_norm_forget"] == float(weights)
        assert last[LOSS] == float(leaf["loss"][-1])

    @pytest.mark.parametrize("lag", ["half", 3])
    def test_the_first_group_has_four_numbers_of_a_layer(self, tmp_path: Path, lag: Any) -> None:
        logger = Kept()
        model = made(bidirectional=True)
        run, _ = watched(tmp_path, model, 2, every=1, loggers=logger, vanishing_lag=lag)
        leaf = run["rnn"].sel(direction="forward").isel(step=-1).to_dataset().compute()
        last = logger.records[-1].numbers
        k = 6 if lag == "half" else lag
        first = {key: value for key, value in last.items() if key.startswith("throughtime/rnn/forward/")}
        names = ("horizon", f"reach_at_lag_{k}", "saturation", "gradient_norm")
        assert list(first) == [f"throughtime/rnn/forward/{name}" for name in names]
        horizon, reach, saturation, norm = first.values()
        ratios = leaf["lag_ratio"].values
        assert horizon == max(k for k in range(12) if ratios[k] >= 0.01)
        assert reach == ratios[k]
        ends = leaf["saturation_left"] + leaf["saturation_right"].where(leaf["gate"] != "forget", 0.0)
        assert saturation == float(ends.max())
        tree = tt.capture(model, *BATCH, loss=MSE)["rnn"].sel(direction="forward")
        gradients = [tree[f"{name}_gradient"].values for name in ("kernel", "recurrent_kernel")]
        gradients += [tree[f"{name}_gradient"].values for name in ("bias", "recurrent_bias")]
        assert norm == pytest.approx(np.sqrt(sum((each.astype(float) ** 2).sum() for each in gradients)))
        others = {key.partition("/")[0] for key in last.keys() - {*first}}
        assert others == {"throughtime", "detail"}
        rest = [key for key in last if key.startswith("throughtime/") and "/forward/" not in key]
        assert len(rest) == 4  # the other direction

    @pytest.mark.parametrize("level", ["summary", "full"])
    def test_the_capture_is_whole_at_every_level(self, tmp_path: Path, level: str) -> None:
        logger, model = Kept(), made()
        watched(tmp_path, model, 2, every=1, quantities=level, loggers=logger)
        wanted = tt.capture(model, *BATCH, loss=MSE)["rnn"]
        assert logger.records[-1].capture["rnn"].to_dataset().identical(wanted.to_dataset())

    def test_histograms_count_every_finite_value(self) -> None:
        model = made(bidirectional=True)
        tree = tt.capture(model, *BATCH, loss=MSE)
        found = Record(0, {}, tree).histograms
        gates = ("input", "forget", "candidate", "output")
        weights = ("kernel", "recurrent_kernel", "bias", "recurrent_bias")
        names = {*weights, *(f"{name}_gradient" for name in weights), "gate_activation"}
        assert set(found) == {
            f"detail/rnn/{way}/{name}_{gate}"
            for way in ("forward", "backward")
            for name in names
            for gate in gates
        }
        for name in names:
            values = tree["rnn"][name].sel(direction="backward", gate="candidate").values.astype(float)
            counts, edges = found[f"{BACKWARD}/{name}_candidate"]
            # Each value by itself: the last edge that it has reached is the left one of its bin.
            places = [
                min(max(k for k in range(31) if edges[k] <= value), 29) if value < edges[-1] else 29
                for value in values.ravel()
            ]
            assert counts.tolist() == [places.count(k) for k in range(30)], name
            if values.min() < values.max():
                assert (edges[0], edges[-1]) == (values.min(), values.max())

    def test_what_is_masked_or_not_finite_does_not_count(self) -> None:
        tree = tt.capture(made(), *BATCH, loss=MSE)
        leaf = tree["rnn"].to_dataset()
        valid = np.ones((8, 12), bool)
        valid[:3, 6:] = False
        leaf["valid"] = (("sample", "time"), valid)
        leaf["kernel"] = leaf["kernel"].copy()
        leaf["kernel"].loc[{"gate": "input"}] = np.nan
        leaf["kernel"][0, 1, :] = np.inf
        tree["rnn"] = tt.testing.xr.DataTree(leaf)
        found = Record(0, {}, tree).histograms
        key = "detail/rnn/gate_activation_forget"
        assert found[key].counts.sum() == 5 * valid.sum()
        assert "detail/rnn/kernel_input" not in found
        assert found["detail/rnn/kernel_forget"].counts.sum() == 2 * 5

    @pytest.mark.parametrize("value", [0.0, 3.0, 1e-320, -1e300])
    def test_one_value_has_a_bin(self, value: float) -> None:
        from throughtime.loggers.record import count

        counts, edges = count(np.full(7, value))
        assert counts.max() == counts.sum() == 7
        assert (np.diff(edges) >= 0).all()

    def test_images_are_pngs_of_each_layer_and_direction(self) -> None:
        record = Record(0, {}, tt.capture(made(bidirectional=True), *BATCH, loss=MSE))
        assert set(record.images) == {
            f"detail/rnn/{way}/gradient_norm_through_time" for way in ("forward", "backward")
        }
        seen = [matplotlib.image.imread(BytesIO(png)) for png in record.images.values()]
        assert all(picture.shape[1] > picture.shape[0] > 100 for picture in seen)
        assert not np.array_equal(*seen)
        assert record.images is record.images  # drawn once for all loggers


class TestCSV:
    def test_has_the_numbers(self, tmp_path: Path) -> None:
        file = tmp_path / "run.csv"
        run, _ = watched(tmp_path, made(bidirectional=True), 4, every=2, loggers=tt.loggers.CSV(file))
        table = pd.read_csv(file, index_col="step")
        assert table.index.tolist() == [0, 2, 4]
        np.testing.assert_allclose(table[LOSS], run["rnn"]["loss"])

    def test_other_columns_stay_as_they_are(self, tmp_path: Path) -> None:
        file = tmp_path / "run.csv"
        file.write_text("mine\n1\n")
        with pytest.warns(tt.ThroughTimeWarning, match=r"columns of .* differ"):
            watched(tmp_path, made(), 1, loggers=tt.loggers.CSV(file))
        assert file.read_text() == "mine\n1\n"

    def test_what_the_loop_tells_may_come_late_and_be_absent(self, tmp_path: Path) -> None:
        logger = tt.loggers.CSV(tmp_path / "logs" / "run.csv")
        for record in late_and_absent():
            logger.write(record)
        check_late_and_absent(pd.read_csv(tmp_path / "logs" / "run.csv"))

    def test_a_run_that_goes_on_has_no_row_twice(self, tmp_path: Path) -> None:
        model, file = made(), tmp_path / "run.csv"
        watched(tmp_path, model, 4, every=2, loggers=tt.loggers.CSV(file))
        watched(tmp_path, model, 2, every=2, loggers=tt.loggers.CSV(file))
        assert pd.read_csv(file)["step"].tolist() == [0, 2, 4, 6]


class TestParquet:
    def test_has_the_numbers(self, tmp_path: Path) -> None:
        folder = tmp_path / "run.parquet"
        run, _ = watched(tmp_path, made(bidirectional=True), 4, every=2, loggers=tt.loggers.Parquet(folder))
        table = pd.read_parquet(folder).set_index("step")
        assert table.index.tolist() == [0, 2, 4]
        np.testing.assert_array_equal(table[LOSS], run["rnn"]["loss"])
        changes = run["rnn"]["kernel_change"].sel(direction="backward", gate="forget")
        np.testing.assert_array_equal(table[f"{BACKWARD}/kernel_change_forget"], changes)

    def test_is_continued_over_many_files(self, tmp_path: Path) -> None:
        for start in (0, 600):
            logger = tt.loggers.Parquet(tmp_path / "run")
            for step in range(start, start + 600):
                logger.write(Record(step, {LOSS: step / 7}))
        table = pd.read_parquet(tmp_path / "run")
        assert table["step"].tolist() == list(range(1200))
        assert table[LOSS].tolist() == [step / 7 for step in range(1200)]
        assert len(list((tmp_path / "run").iterdir())) == 6

    def test_what_the_loop_tells_may_come_late_and_be_absent(self, tmp_path: Path) -> None:
        logger = tt.loggers.Parquet(tmp_path / "run")
        for record in late_and_absent():
            logger.write(record)
        check_late_and_absent(pd.read_parquet(tmp_path / "run"))

    def test_late_columns_reach_files_that_are_full(self, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.setattr("throughtime.loggers.parquet.ROWS_A_FILE", 1)
        self.test_what_the_loop_tells_may_come_late_and_be_absent(tmp_path)
        names = [
            set(pyarrow.parquet.read_schema(path).names) for path in sorted((tmp_path / "run").iterdir())
        ]
        assert names[0] == names[1] == {"step", LOSS, "throughtime/gradient_norm"}

    def test_other_files_and_columns_stay_as_they_are(self, tmp_path: Path) -> None:
        (tmp_path / "mine").write_text("text")
        with pytest.raises(tt.MonitorError, match="is a file"):
            tt.loggers.Parquet(tmp_path / "mine")
        with pytest.raises(tt.MonitorError, match="other files, such as mine"):
            tt.loggers.Parquet(tmp_path)
        tt.loggers.Parquet(tmp_path / "run").write(Record(0, {LOSS: 1.0}))
        with pytest.raises(tt.MonitorError, match=r"columns of .* differ.*: detail/gru/loss"):
            tt.loggers.Parquet(tmp_path / "run").write(Record(1, {"detail/gru/loss": 1.0}))
        assert pd.read_parquet(tmp_path / "run").values.tolist() == [[0, 1.0]]

    def test_a_kill_loses_no_row_that_was_written(self, tmp_path: Path) -> None:
        program = f"""
from throughtime.loggers import Parquet, Record
logger, step = Parquet({str(tmp_path / "run")!r}), 0
while True:
    logger.write(Record(step, {{"detail/rnn/loss": float(step), "detail/rnn/other": -1.0}}))
    print(step, flush=True)
    step += 1
"""
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        for line in process.stdout:
            # A reader beside the writer sees whole rows, and all that were told before it began.
            if int(line) % 100 == 50:
                assert len(pd.read_parquet(tmp_path / "run")) > int(line)
            if int(line) == 333:
                break
        os.kill(process.pid, signal.SIGKILL)
        written = [333, *map(int, process.stdout.read().split())]
        process.wait()
        process.stdout.close()
        table = pd.read_parquet(tmp_path / "run")
        assert len(table) in (written[-1] + 1, written[-1] + 2)
        assert table["step"].tolist() == table[LOSS].tolist() == list(range(len(table)))


def late_and_absent() -> list[Record]:
    """Three records; only the second has what a training loop tells."""
    told = {"throughtime/gradient_norm": 3.5}
    return [Record(0, {LOSS: 1.0}), Record(5, {**told, LOSS: 0.5}), Record(10, {LOSS: 0.25})]


def check_late_and_absent(table: pd.DataFrame) -> None:
    assert table["step"].tolist() == [0, 5, 10]
    assert table[LOSS].tolist() == [1.0, 0.5, 0.25]
    np.testing.assert_array_equal(table["throughtime/gradient_norm"], [np.nan, 3.5, np.nan])


class TestTensorBoard:
    def test_reads_back_scalars_histograms_and_images(self, tmp_path: Path) -> None:
        kept, logger = Kept(), tt.loggers.TensorBoard(tmp_path / "events", images=True)
        watched(tmp_path, made(bidirectional=True), 4, every=2, loggers=[kept, logger])
        # 0 keeps every event in memory
        events = EventAccumulator(str(tmp_path / "events"), {"tensors": 0}).Reload()
        record = kept.records[-1]
        for plugin, keys in {
            "scalars": record.numbers,
            "histograms": record.histograms,
            "images": record.images,
        }.items():
            assert set(events.PluginTagToContent(plugin)) == set(keys)
            for key in keys:
                found = events.Tensors(key)
                assert [event.step for event in found] == [0, 2, 4]
                check_tensor(plugin, tensor_util.make_ndarray(found[-1].tensor_proto), keys[key])

    def test_a_second_training_is_added(self, tmp_path: Path) -> None:
        logger, model = tt.loggers.TensorBoard(tmp_path / "events"), made()
        for _ in range(2):
            watched(tmp_path, model, 2, every=1, loggers=logger)
        events = EventAccumulator(str(tmp_path / "events")).Reload()
        assert [event.step for event in events.Tensors(LOSS)] == [0, 1, 2, 3, 4]

    def test_images_are_drawn_on_request_only(self, tmp_path: Path) -> None:
        kept = Kept()
        loggers = [kept, tt.loggers.TensorBoard(tmp_path / "events", histograms=False)]
        watched(tmp_path, made(), 1, loggers=loggers)
        events = EventAccumulator(str(tmp_path / "events")).Reload()
        assert set(events.Tags()["tensors"]) == set(kept.records[0].numbers)
        assert not {"images", "histograms"} & set(vars(kept.records[0]))


def check_tensor(plugin: str, found: Any, wanted: Any) -> None:
    if plugin == "scalars":
        np.testing.assert_array_equal(found, np.float32(wanted))
    elif plugin == "histograms":
        np.testing.assert_array_equal(found[:, 2], wanted.counts)
        np.testing.assert_array_equal(found[:, 0], wanted.edges[:-1])
        np.testing.assert_array_equal(found[:, 1], wanted.edges[1:])
    else:
        height, width = matplotlib.image.imread(BytesIO(wanted)).shape[:2]
        assert [int(found[0]), int(found[1])] == [width, height]
        assert found[2] == wanted


class TestFailing:
    def test_a_logger_is_one_warning_and_training_goes_on(self, tmp_path: Path) -> None:
        class Failing:
            def write(self, record: Record) -> None:
                raise ConnectionError(f"nobody there at step {record.step}")

            def close(self) -> None:
                raise RuntimeError("nor at the end")

        kept = Kept()
        with pytest.warns(tt.ThroughTimeWarning, match="nobody there at step 0") as caught:
            run, _ = watched(tmp_path, made(), 3, every=1, loggers=[Failing(), kept])
        assert len(caught) == 1
        assert run["rnn"].sizes["step"] == len(kept.records) == 4

    def test_a_logger_is_left_out_after_three_failures_in_a_row(self, tmp_path: Path) -> None:
        class Failing:
            def __init__(self, fails: Any) -> None:
                self.asked: list[int] = []
                self.fails, self.is_closed = fails, False

            def write(self, record: Record) -> None:
                self.asked.append(record.step)
                if self.fails(record.step):
                    raise ConnectionError("nobody there")

            def close(self) -> None:
                self.is_closed = True

        gone, shaky = Failing(lambda step: step >= 2), Failing(lambda step: step % 3 != 2)
        with pytest.warns(tt.ThroughTimeWarning, match="nobody there"):
            watched(tmp_path, made(), 8, every=1, loggers=[gone, shaky])
        assert gone.asked == [0, 1, 2, 3, 4]
        assert shaky.asked == list(range(9))
        assert gone.is_closed

    def test_the_old_names_warn_and_still_work(self, tmp_path: Path) -> None:
        with pytest.warns(DeprecationWarning, match="tt.loggers"):
            old = tt.sinks
        assert old is tt.loggers
        kept = Kept()
        with pytest.warns(DeprecationWarning, match="loggers="):
            watched(tmp_path, made(), 1, sinks=kept)
        assert kept.records

    def test_what_is_no_logger(self, tmp_path: Path) -> None:
        with pytest.raises(tt.MonitorError, match=r"write\(record\), not str"):
            tt.Monitor(tmp_path / "run.zarr", BATCH, loggers="tensorboard")

    @pytest.mark.parametrize(
        ("name", "module", "extra"),
        [
            ("TensorBoard", "tensorboard", "tensorboard"),
            ("Parquet", "pyarrow", "parquet"),
            ("WandB", "wandb", "wandb"),
            ("MLflow", "mlflow", "mlflow"),
        ],
    )
    def test_a_missing_library_is_told_with_its_command(
        self, tmp_path: Path, monkeypatch: Any, name: str, module: str, extra: str
    ) -> None:
        for loaded in [each for each in sys.modules if each.partition(".")[0] == module]:
            monkeypatch.delitem(sys.modules, loaded)
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(tt.MissingDependencyError, match=rf"pip install 'throughtime\[{extra}\]'"):
            getattr(tt.loggers, name)(str(tmp_path / "new"))
        assert not list(tmp_path.iterdir())
