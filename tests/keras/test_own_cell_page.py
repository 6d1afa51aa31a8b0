"""What the page on custom cells shows runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how_to" / "own_cell.md"


def test_the_page_runs() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 65
    (block,) = re.findall(r"```{code-cell} python\n(.*?)```", text, flags=re.DOTALL)
    names: dict[str, Any] = {"__name__": "own_cell_page"}
    exec(compile(block, PAGE.name, "exec"), names)  # our own text
    leaf = names["leaf"].to_dataset()
    assert leaf["gate_gradient"].sel(gate="forget").dims == ("sample", "time", "unit")
    assert leaf["drive_gradient"].dims == leaf["hidden"].dims
    assert max(float(leaf["certificate_weights"]), float(leaf["certificate_time"])) <= 1e-5
