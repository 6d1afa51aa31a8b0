"""W&B and MLflow as they keep a run on this machine, read back: nothing here reaches a network."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from tests.monitor.loops import made, watched

import throughtime as tt
from throughtime.loggers import Record

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # it is read when mlflow is imported

import mlflow
import wandb
from wandb.proto.wandb_internal_pb2 import Record as Entry

LOSS = "detail/rnn/loss"
IMAGE = "detail/rnn/forward/gradient_norm_through_time"


@pytest.fixture(autouse=True)
def offline(monkeypatch: Any) -> Iterator[None]:
    """Note every address beyond this machine that this process asks for."""
    asked, connect = [], socket.socket.connect

    def noted(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1"):
            asked.append(address)
            raise ConnectionRefusedError("no network in tests")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", noted)
    yield
    assert not asked


class Kept:
    def __init__(self) -> None:
        self.records: list[Record] = []

    def write(self, record: Record) -> None:
        self.records.append(record)


class TestWandB:
    @pytest.fixture(autouse=True)
    def settings(self, tmp_path: Path, monkeypatch: Any) -> None:
        for name, value in {"MODE": "offline", "DIR": str(tmp_path), "SILENT": "true"}.items():
            monkeypatch.setenv(f"WANDB_{name}", value)
        monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")

    def test_reads_back_numbers_histograms_and_images(self, tmp_path: Path) -> None:
        kept, logger = Kept(), tt.loggers.WandB(project="memory", images=True)
        watched(tmp_path, made(bidirectional=True), 4, every=2, loggers=[kept, logger])
        assert wandb.run is None  # a run of its own ends with the training
        rows = history(tmp_path)
        assert [row["throughtime/step"] for row in rows] == [0, 2, 4]
        for row, record in zip(rows, kept.records, strict=True):
            for key, value in record.numbers.items():
                np.testing.assert_equal(float(row[key]), value)  # W&B writes NaN as a text
            for key, histogram in record.histograms.items():
                assert row[key]["values"] == histogram.counts.tolist()
                np.testing.assert_allclose(row[key]["bins"], histogram.edges, rtol=1e-15)
            (file,) = tmp_path.rglob(row[IMAGE]["path"])
            wanted = matplotlib.image.imread(BytesIO(record.images[IMAGE]))
            np.testing.assert_array_equal(matplotlib.image.imread(file), wanted)

    def test_the_axis_is_the_training_step_whatever_else_is_logged(self, tmp_path: Path) -> None:
        run = wandb.init(project="mine")
        for _ in range(7):
            run.log({"mine": 1.0})  # moves W&B's own counter on
        watched(tmp_path, made(), 4, every=2, loggers=tt.loggers.WandB(histograms=False))
        assert wandb.run is run  # the user's run goes on
        run.log({"mine": 2.0})
        run.finish()
        rows = [row for row in history(tmp_path) if LOSS in row]
        assert [(row["_step"], row["throughtime/step"]) for row in rows] == [(7, 0), (8, 2), (9, 4)]
        metrics = {
            each.metric.name or each.metric.glob_name: each.metric for each in entries(tmp_path, "metric")
        }
        for name in ("throughtime/*", "detail/*"):
            assert metrics[name].step_metric == "throughtime/step"
        assert "mine" not in metrics

    def test_a_second_training_goes_on_in_the_same_run(self, tmp_path: Path) -> None:
        logger, model = tt.loggers.WandB(project="memory", histograms=False), made()
        for _ in range(2):
            watched(tmp_path, model, 2, every=1, loggers=logger)
        wandb.teardown()
        files = sorted(tmp_path.rglob("*.wandb"), key=lambda file: file.stat().st_mtime)
        assert len({file.name for file in files}) == 1  # a name has the run's id
        steps = [row["throughtime/step"] for file in files for row in history(file.parent)]
        assert steps == [0, 1, 2, 3, 4]

    def test_a_run_given_is_taken(self, tmp_path: Path) -> None:
        first, second = (wandb.init(project="mine", reinit="create_new") for _ in range(2))
        logger = tt.loggers.WandB(first, histograms=False)
        logger.write(Record(3, {LOSS: 0.5}))
        logger.close()
        second.finish()
        first.log({"mine": 1})  # it was not finished
        first.finish()
        assert [row.get(LOSS) for row in history(tmp_path, first.id)] == [0.5, None]
        assert history(tmp_path, second.id) == []


def history(folder: Path, run: str = "") -> list[dict[str, Any]]:
    """Rows of an offline run."""
    rows = []
    for entry in entries(folder, "history", run):
        row: dict[str, Any] = {}
        for item in entry.history.item:
            *outer, last = item.nested_key or [item.key]
            inner = row
            for key in outer:
                inner = inner.setdefault(key, {})
            inner[last] = json.loads(item.value_json)
        rows.append(row)
    return rows


def entries(folder: Path, kind: str, run: str = "") -> list[Entry]:
    """Read a .wandb file: a header of 7 bytes, then blocks of 32 kB as LevelDB's log has them."""
    wandb.teardown()  # W&B's own process may hold the last rows for a moment after a run is finished
    (file,) = folder.rglob(f"*{run}.wandb")
    data, place, parts, found = file.read_bytes(), 7, b"", []
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:  # no header fits: the rest of the block is empty
            place += left
            continue
        length, part = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if part in (1, 4):  # whole, or the last part
            found.append(Entry.FromString(parts))
            parts = b""
    return [entry for entry in found if entry.WhichOneof("record_type") == kind]


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an SQLite store: MLflow writes its tables version by version, for seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "store.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


# MLflow's models use what the newest SQLAlchemy advises against, and its stores what Python does.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
class TestMLflow:
    @pytest.fixture(autouse=True)
    def elsewhere(self, tmp_path: Path, monkeypatch: Any, empty_store: Path) -> None:
        monkeypatch.chdir(tmp_path)  # where MLflow keeps images
        for name in ("store", "there", "here"):
            shutil.copy(empty_store, tmp_path / f"{name}.db")

    def test_reads_back_numbers_and_images(self, tmp_path: Path) -> None:
        uri = f"sqlite:///{tmp_path}/new.db"
        kept, logger = Kept(), tt.loggers.MLflow(uri, experiment="memory", run_name="first", images=True)
        watched(tmp_path, made(), 4, every=2, loggers=[kept, logger])
        client, run = only_run(uri, "memory")
        assert (run.info.run_name, run.info.status) == ("first", "FINISHED")
        assert set(run.data.metrics) == set(kept.records[0].numbers)
        for key in run.data.metrics:
            found = {each.step: each.value for each in client.get_metric_history(run.info.run_id, key)}
            wanted = {record.step: record.numbers[key] for record in kept.records}
            np.testing.assert_equal(found, wanted)
        pictures = [each.path for each in client.list_artifacts(run.info.run_id, "images")]
        pictures = sorted(path for path in pictures if path.endswith(".png"))
        assert [path.split("+")[:3] for path in pictures] == [
            ["images/detail~rnn~gradient_norm_through_time", "step", str(step)] for step in (0, 2, 4)
        ]
        (png,) = kept.records[-1].images.values()
        wanted = matplotlib.image.imread(BytesIO(png))
        stored = client.download_artifacts(run.info.run_id, pictures[-1])
        np.testing.assert_array_equal(matplotlib.image.imread(stored), wanted)

    @pytest.mark.parametrize("is_told", [False, True], ids=["by default", "with its address"])
    def test_the_active_run_is_used_and_goes_on(self, tmp_path: Path, is_told: bool) -> None:
        before, uri = mlflow.get_tracking_uri(), f"sqlite:///{tmp_path}/store.db"
        mlflow.set_tracking_uri(uri)
        try:
            mlflow.set_experiment("mine")
            with mlflow.start_run() as run:
                watched(tmp_path, made(), 2, every=2, loggers=tt.loggers.MLflow(uri if is_told else None))
                assert mlflow.active_run().info.run_id == run.info.run_id
                assert mlflow.MlflowClient().get_run(run.info.run_id).info.status == "RUNNING"
        finally:
            mlflow.set_tracking_uri(before)
        client, run = only_run(uri, "mine")
        assert [each.step for each in client.get_metric_history(run.info.run_id, LOSS)] == [0, 2]

    def test_a_second_training_goes_on_in_the_same_run(self, tmp_path: Path) -> None:
        uri = f"sqlite:///{tmp_path}/store.db"
        logger, model = tt.loggers.MLflow(uri), made()
        for _ in range(2):
            watched(tmp_path, model, 2, every=1, loggers=logger)
        client, run = only_run(uri, "throughtime")
        assert run.info.status == "FINISHED"
        steps = [each.step for each in client.get_metric_history(run.info.run_id, LOSS)]
        assert steps == [0, 1, 2, 3, 4]

    def test_an_active_run_elsewhere_is_left_alone(self, tmp_path: Path) -> None:
        before, there = mlflow.get_tracking_uri(), f"sqlite:///{tmp_path}/there.db"
        mlflow.set_tracking_uri(there)
        try:
            mlflow.set_experiment("mine")
            with mlflow.start_run():
                watched(
                    tmp_path, made(), 2, every=2, loggers=tt.loggers.MLflow(f"sqlite:///{tmp_path}/here.db")
                )
        finally:
            mlflow.set_tracking_uri(before)
        assert not only_run(there, "mine")[1].data.metrics
        assert LOSS in only_run(f"sqlite:///{tmp_path}/here.db", "throughtime")[1].data.metrics

    def test_more_metrics_than_a_call_takes_and_names_it_does_not(self, tmp_path: Path) -> None:
        uri = f"sqlite:///{tmp_path}/store.db"
        logger = tt.loggers.MLflow(uri)
        numbers = {f"detail/lstm@2~{place}/loss": float(place) for place in range(1500)}
        logger.write(Record(1, numbers))
        logger.close()
        _, run = only_run(uri, "throughtime")
        assert run.data.metrics == {f"detail/lstm-2-{place}/loss": place for place in range(1500)}
        assert mlflow.active_run() is None


def only_run(uri: str, experiment: str) -> tuple[Any, Any]:
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return client, run
