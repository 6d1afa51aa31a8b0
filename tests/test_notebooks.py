"""The notebooks in examples/ run and show what they show in the repository; the README runs as a notebook."""

from __future__ import annotations

import base64
import io
import os
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from docs._kernels import Kernels
from nbclient import NotebookClient
from PIL import Image

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
    client = NotebookClient(
        notebook, kernel_manager_class=Kernels, timeout=300, kernel_name="python3", resources=resources
    )
    client.execute(env=environment)


def test_there_are_two():
    assert [path.stem for path in NOTEBOOKS] == ["classic", "through_time"]


@pytest.mark.parametrize(
    "path", [pytest.param(NOTEBOOKS[0], marks=pytest.mark.slow), *NOTEBOOKS[1:]], ids=lambda path: path.stem
)
def test_notebook_runs_and_shows_the_same(path, tmp_path):
    kept = nbformat.read(path, as_version=4)
    run = nbformat.read(path, as_version=4)
    for cell in run.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    execute(run, tmp_path)
    assert kinds(run) == kinds(kept)
    assert any("image/png" in each for shown in kinds(run) for each in shown)


def test_a_conclusion_in_words_follows_every_figure_of_the_classic_notebook():
    cells = nbformat.read(EXAMPLES / "classic.ipynb", as_version=4).cells
    drawn = [place for place, cell in enumerate(cells) if "image/png" in str(cell.get("outputs", ""))]
    assert len(drawn) == 7
    for place in drawn:
        (shown,) = cells[place].outputs
        png = Image.open(io.BytesIO(base64.b64decode(shown.data["image/png"])))
        width = shown.metadata["image/png"]["width"]
        assert png.width == pytest.approx(2 * width, abs=1)
        assert 850 < width < 1050
        assert cells[place + 1].cell_type == "markdown"
        assert len(cells[place + 1].source.split()) > 20


def as_notebook(page: Path) -> nbformat.NotebookNode:
    """Put the Python blocks of a page into cells."""
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(block) for block in blocks])


@pytest.mark.slow
def test_the_blocks_of_the_readme_run_twice_and_print_what_it_shows(tmp_path):
    """In one notebook, and a second time in the same one; the numbers differ from backend to backend."""
    notebook = as_notebook(ROOT / "README.md")
    count = len(notebook.cells)
    assert count > 5
    notebook.cells += [nbformat.v4.new_code_cell(cell.source) for cell in notebook.cells]
    execute(notebook, tmp_path)
    shown = re.findall(r"```text\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    for start in (0, count):
        for text, cell in zip(shown, notebook.cells[start:], strict=False):
            printed = "".join(each.text for each in cell.outputs if each.get("name") == "stdout")
            assert without_numbers(printed) == without_numbers(text)


def without_numbers(text: str) -> list[str]:
    return re.sub(r"[<≥]? ?-?\d[\d.]*", "#", text).split()


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 700
