"""What the README shows of native PyTorch runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_readme_runs() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    names: dict[str, object] = {}
    for block in re.findall(r"```py\n(.*?)```", text, flags=re.DOTALL):
        exec(compile(block, "README.md", "exec"), names)  # our own text
    assert {leaf.path for leaf in names["tree"].leaves} == {"/lstm/0", "/lstm/1"}
    assert names["grads"].shape == (16, 100, 6)
