"""The notebooks in examples/ run from a fresh kernel and show what they show in the repository."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
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


def test_there_are_two():
    assert [path.stem for path in NOTEBOOKS] == ["classic", "through_time"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_shows_the_same(path, tmp_path):
    kept = nbformat.read(path, as_version=4)
    run = nbformat.read(path, as_version=4)
    for cell in run.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    # A kernel that chooses its way to draw as a fresh notebook does.
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(run, timeout=300, kernel_name="python3", resources=resources).execute(env=environment)
    assert kinds(run) == kinds(kept)
    assert any("image/png" in each for shown in kinds(run) for each in shown)
