"""What the page on own cells shows runs as it stands there, and prints what it says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import throughtime as tt
from throughtime import _cell_registry as registry

PAGE = Path(__file__).resolve().parents[2] / "docs" / "own_cell.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.fixture(autouse=True)
def _only_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})


def test_every_block_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {"__name__": "own_cell_page"}
    for block in blocks("python"):
        exec(compile(block, PAGE.name, "exec"), names)  # our own text
        if "GatedUnitCell" in block and "sequence" in block:
            leaf = names["tree"]["gated"].to_dataset()  # type: ignore[index]
            assert leaf.attrs["kind"] == "gated_unit"
            assert max(float(leaf["certificate_weights"]), float(leaf["certificate_time"])) <= 1e-5
            assert names["forget"].dims == ("sample", "time", "unit")  # type: ignore[attr-defined]
    tree = names["tree"]
    assert np.max(tree["indrnn"]["certificate_time"]) <= 1e-5  # type: ignore[index]
    assert tt.diagnostics.lyapunov_spectrum(tree).sizes == {"sample": 8, "direction": 2, "exponent": 5}
    # Rounding differs from machine to machine; the words do not.
    (shown,), printed = blocks("text"), capsys.readouterr().out
    number = re.compile(r"\d\.\de-\d+")
    assert number.sub("#", printed) == number.sub("#", shown)
