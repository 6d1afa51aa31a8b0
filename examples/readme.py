"""Runs the blocks of README.md one after the other and draws its first picture.

Run: python examples/readme.py [FOLDER]
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import throughtime as tt
from throughtime._pages.report.answer import measured, reach_picture

BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
THEME = tt.Theme(dpi=110)


def blocks(text: str) -> list[str]:
    """Find the Python blocks of a page."""
    return BLOCK.findall(text)


def main(folder: Path) -> None:
    """Run and draw."""
    names: dict[str, Any] = {}
    curves, titles = [], []
    for block in blocks((Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")):
        exec(block, names)
        if "diagnose(" in block:
            model, x, y = (names[name] for name in ("model", "x", "y"))
            found = tt.diagnose(model, x[:64], y[:64], dependency_length=58)
            titles.append(str(found.brief).partition("\n")[0].rstrip("."))
            curves.append(measured(tt.capture(model, x[:64], y[:64]))["lstm"])
    folder.mkdir(parents=True, exist_ok=True)
    labels = [f"{when}: {title}" for when, title in zip(("before", "after"), titles, strict=True)]
    tt.save(
        reach_picture(dict(zip(labels, curves, strict=True)), 58), folder / "before_after.png", theme=THEME
    )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "readme"))
