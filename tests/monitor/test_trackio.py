"""Records in Trackio, or in a stand-in with its interface: which run, which step, which numbers."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.monitor.loops import made, watched

import throughtime as tt

LOSS = "detail/rnn/loss"


class StandIn(ModuleType):
    """The part of Trackio that the logger needs, with what it was given."""

    def __init__(self) -> None:
        super().__init__("trackio")
        self.context_vars = SimpleNamespace(current_run=ContextVar("current_run", default=None))
        self.begun: list[dict[str, Any]] = []

    def init(self, **options: Any) -> Any:
        self.begun.append(options)
        run = StandInRun(options.get("name") or "run-1")
        self.context_vars.current_run.set(run)
        return run

    Histogram = staticmethod(lambda np_histogram: np_histogram)
    Image = staticmethod(lambda picture: picture.size)


class StandInRun:
    def __init__(self, name: str) -> None:
        self.name, self.rows, self.is_finished = name, [], False

    def log(self, metrics: dict[str, Any], step: int | None = None) -> None:
        self.rows.append({"step": step, **metrics})

    def finish(self) -> None:
        self.is_finished = True


@pytest.fixture
def trackio(monkeypatch: Any) -> StandIn:
    library = StandIn()
    monkeypatch.setitem(sys.modules, "trackio", library)
    return library


def test_the_active_run_gets_numbers_by_training_step_and_goes_on(trackio: StandIn, tmp_path: Path) -> None:
    run = trackio.init(project="mine")
    tree, _ = watched(tmp_path, made(), 4, every=2, loggers=tt.loggers.Trackio(images=True), background=True)
    assert [row["step"] for row in run.rows] == [0, 2, 4]
    np.testing.assert_allclose([row[LOSS] for row in run.rows], tree["rnn"]["loss"].values)
    assert any(
        isinstance(value, tuple) and len(value[1]) == len(value[0]) + 1 for value in run.rows[0].values()
    )
    assert len(trackio.begun) == 1
    assert not run.is_finished


def test_a_run_of_the_logger_ends_with_the_training_and_is_resumed(trackio: StandIn, tmp_path: Path) -> None:
    logger, model = tt.loggers.Trackio(project="memory", histograms=False), made()
    for part in ("a", "b"):
        trackio.context_vars.current_run.set(None)
        (tmp_path / part).mkdir()
        watched(tmp_path / part, model, 2, loggers=logger)
    assert trackio.begun == [{"project": "memory"}, {"project": "memory", "name": "run-1", "resume": "allow"}]
    assert trackio.context_vars.current_run.get().is_finished


def test_without_trackio_the_error_names_the_extra(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(tt.MissingDependencyError, match=r"throughtime\[trackio\]"):
        tt.loggers.Trackio()


if find_spec("trackio"):

    def test_trackio_itself_gives_the_numbers_back(tmp_path: Path, monkeypatch: Any) -> None:
        import trackio

        monkeypatch.setattr("trackio.utils.TRACKIO_DIR", tmp_path / "trackio")
        monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "trackio")
        tree, _ = watched(tmp_path, made(), 4, every=2, loggers=tt.loggers.Trackio(project="memory"))
        (run,) = trackio.Api().runs("memory")
        rows = [row for row in trackio.SQLiteStorage.get_logs("memory", run.name) if LOSS in row]
        assert [row["step"] for row in rows] == [0, 2, 4]
        np.testing.assert_allclose([row[LOSS] for row in rows], tree["rnn"]["loss"].values, rtol=1e-6)
