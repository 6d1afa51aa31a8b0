"""A run knows what it was made from, and is continued with the same model and batch only."""

from __future__ import annotations

import json
import platform
import subprocess
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.monitor.loops import BATCH, MSE, X, Y, made, watched
from torch import nn
from typer.testing import CliRunner

import throughtime as tt
from throughtime._cli.commands import app
from throughtime._monitor.provenance import fingerprint


def test_a_run_tells_where_it_comes_from(tmp_path: Path) -> None:
    run, _ = watched(tmp_path, made(), 1, every=tt.logarithmic(3), budget=1e9)
    attributes = run.attrs
    assert all(isinstance(value, (str, int, float)) for value in attributes.values())
    assert "LSTM" in attributes["model_summary"]
    assert attributes["model_class"].endswith(".Reader")
    versions = json.loads(attributes["versions"])
    assert versions["python"] == platform.python_version()
    assert versions["torch"] == version("torch")
    config = json.loads(attributes["monitor_config"])
    assert config["schedule"] == "logarithmic, 3 per tenfold step"
    assert (config["quantities"], config["loss"], config["budget"]) == ("summary", "MSELoss", 1e9)
    started = datetime.fromisoformat(attributes["started"])
    assert abs(datetime.now(UTC) - started) < timedelta(minutes=5)
    layers = json.loads(attributes["model_layers"])
    assert layers["rnn"]["weights"]["kernel"] == [3, 4, 5]


def test_the_commit_is_gits_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        done = subprocess.run(
            ["git", *who, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert "git_commit" not in watched(tmp_path / "none", made(), 0)[0].attrs
    git("init", "-q")
    (tmp_path / "file").write_text("a")
    git("add", "file")
    git("commit", "-q", "-m", "first")
    clean = watched(tmp_path / "clean", made(), 0)[0].attrs
    assert (clean["git_commit"], clean["git_dirty"]) == (git("rev-parse", "HEAD"), 0)
    (tmp_path / "file").write_text("b")
    assert watched(tmp_path / "dirty", made(), 0)[0].attrs["git_dirty"] == 1


class TestFingerprint:
    def test_it_follows_the_contents(self) -> None:
        x = np.arange(6.0).reshape(2, 3)
        same = fingerprint((x, None, x))
        assert fingerprint((x.copy(), None, x.copy())) == same
        for other in ((x + 1, None, x), (x.astype("f4"), None, x), (x.T, None, x), (x, None, None)):
            assert fingerprint(other)["sha256"] != same["sha256"]

    def test_it_takes_what_a_batch_may_be(self) -> None:
        x = torch.arange(6.0).reshape(2, 3)
        assert fingerprint(x) == fingerprint(x.numpy()) == fingerprint(x.numpy()[:, ::-1][:, ::-1])
        assert fingerprint({"b": x, "a": 2 * x}) == fingerprint({"a": 2 * x, "b": x})
        assert len(fingerprint([x, (x, x)])["arrays"]) == 3
        assert fingerprint(x.bfloat16())["sha256"] != fingerprint(2 * x.bfloat16())["sha256"]
        assert fingerprint(np.array(["a", "b"], object)) != fingerprint(np.array(["a", "c"], object))
        packed = nn.utils.rnn.pack_sequence([x, x[:1]])
        assert fingerprint(packed) == fingerprint(nn.utils.rnn.pack_sequence([x, x[:1]]))


class TestAnotherModelsRun:
    @pytest.mark.parametrize(
        ("other", "told"),
        [
            (lambda: made(nn.GRU), "rnn is lstm in the run, gru here"),
            (lambda: made(bidirectional=True), r"kernel of rnn is \(3, 4, 5\) in the run, \(2, 3, 4, 5\)"),
            (lambda: made(num_layers=2), "it has no rnn/0; it has no rnn/1|it has rnn, which"),
        ],
        ids=["kind", "shape", "layers"],
    )
    def test_is_refused_before_training(self, tmp_path: Path, other: Any, told: str) -> None:
        before = watched(tmp_path, made(), 1)[0].load()
        with pytest.raises(tt.StoreError, match=f"another model: .*(?:{told}).*another path"):
            watched(tmp_path, other(), 1)
        run, _ = watched(tmp_path, made(), 0, mode="continue")
        assert run["rnn"].sizes["step"] == before["rnn"].sizes["step"]

    def test_another_batch_is_refused(self, tmp_path: Path) -> None:
        watched(tmp_path, made(), 1)
        for batch, told in (((X[:8] + 1, Y[:8]), "other values"), ((X[:4], Y[:4]), r"float32 \(4, 12, 3\)")):
            monitor = tt.Monitor(tmp_path / "run.zarr", batch, loss=MSE)
            with pytest.raises(tt.StoreError, match=f"another batch: .*{told}"), monitor.watch(made()):
                pass
        assert watched(tmp_path, made(), 1, mode="continue")[0]["rnn"].sizes["step"] == 3


def test_the_command_tells_it(tmp_path: Path) -> None:
    watched(tmp_path, made(), 1)
    run = str(tmp_path / "run.zarr")
    told = CliRunner().invoke(app, ["info", run, "--json"])
    found = json.loads(told.stdout)
    assert found["versions"]["torch"] == version("torch")
    assert found["batch_fingerprint"] == fingerprint(BATCH)
    shown = CliRunner().invoke(app, ["info", run, "--verbose"], env={"COLUMNS": "200"}).stdout
    assert f"torch {version('torch')}" in shown
    assert "model config" not in shown
    assert "float32" in shown
