"""What docs/how_to/figures.md shows runs, and its table names every picture."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import throughtime as tt
from throughtime import testing

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "how_to" / "figures.md").read_text(encoding="utf-8")


def test_blocks_run(tmp_path):
    lstm = testing.constant_gates(samples=2)["rnn"].to_dataset()
    names = {"tt": tt, "tree": tt.testing.xr.DataTree.from_dict({"/lstm": lstm})}
    with contextlib.chdir(tmp_path):
        for block in re.findall(r"```{code-cell} python\n(.*?)```", PAGE, flags=re.DOTALL)[1:]:
            exec(compile(block, "figures.md", "exec"), names)  # our own text
    assert {each.name for each in tmp_path.iterdir()} == {"gradient.pdf", "gradient.html"}


def test_table_names_every_picture():
    public = {name for name in tt.plots.__all__ if name.islower()}
    told = set(re.findall(r"\| `(\w+)`", PAGE))
    assert public <= told
