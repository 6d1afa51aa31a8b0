"""`throughtime sweep` on a script."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.sweep.networks import Last
from typer.testing import CliRunner

import throughtime as tt
from throughtime._cli import app

SCRIPT = """
import torch
from tests.sweep.networks import batch, made, mse

def data():
    return batch(16)

def broken():
    raise OSError("the disk is away")

def some():
    return [lambda: batch(16), broken]
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text(SCRIPT)
    for number in range(2):
        torch.save(Last().state_dict(), tmp_path / f"epoch{number}.pt")
    return tmp_path / "train.py"


def called(script: Path, *further: str, data: str = "data") -> tuple[int, str]:
    given = ["sweep", f"{script}:made", "--data", f"{script}:{data}", "--loss", f"{script}:mse", *further]
    result = CliRunner().invoke(app, [*given, "-o", str(script.parent / "sweep")])
    return result.exit_code, " ".join(result.output.split())


def test_each_checkpoint_has_its_verdict(script: Path) -> None:
    code, output = called(script, "--checkpoints", str(script.parent / "epoch*.pt"), "--lag", "3")
    assert code == 0, output
    assert "epoch0.pt: " in output
    assert "epoch1.pt: " in output
    assert tt.open_sweep(script.parent / "sweep")["rnn"].sizes["step"] == 2


@pytest.mark.slow
def test_processes_give_the_same(script: Path) -> None:
    code, output = called(script, "--workers", "2")
    assert code == 0, output
    assert "current: " in output


@pytest.mark.filterwarnings("ignore:Tasks of the sweep that failed")
def test_a_failed_task_is_exit_code_1(script: Path) -> None:
    assert called(script, data="some")[0] == 1


def test_what_is_not_there_is_named(script: Path) -> None:
    assert "No file matches" in called(script, "--checkpoints", "none*.pt")[1]
    assert "has no function dat" in called(script, data="dat")[1]
