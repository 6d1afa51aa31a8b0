"""The notebooks in examples/ run and show what they show in the repository; the README runs as a notebook."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


def kinds(notebook: nbformat.NotebookNode) -> list[list[str]]:
    """List what each cell shows, the framework's own messages aside."""
    return [
        [
            each.name if each.output_type == "stream" else " ".join(sorted(each.data))
            for each in cell.outputs
            if not (each.output_type == "stream" and each.name == "stderr")
        ]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def execute(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Run it from a fresh kernel, which selects how to draw as that of a user does."""
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    resources: dict[str, Any] = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources)
    client.execute(env=environment)


def test_there_are_two():
    assert [path.stem for path in NOTEBOOKS] == ["classic", "through_time"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_shows_the_same(path, tmp_path):
    kept = nbformat.read(path, as_version=4)
    run = nbformat.read(path, as_version=4)
    for cell in run.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    execute(run, tmp_path)
    assert kinds(run) == kinds(kept)
    assert any("image/png" in each for shown in kinds(run) for each in shown)


def test_the_blocks_of_the_readme_run_in_one_notebook(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) > 8
    cells = [nbformat.v4.new_code_cell(block) for block in blocks]
    execute(nbformat.v4.new_notebook(cells=cells), tmp_path)
