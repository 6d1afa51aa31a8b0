"""The site has a page for every public name, a gallery of questions with answers, and links that hold."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from docs._examples import EXAMPLES, example

import throughtime as tt
from throughtime.compat import see_rnn

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
GALLERY = sorted((ROOT / "examples" / "gallery").glob("[0-9]*.py"))
BUILT = {"gallery", "generated", "commands.md", "limitations.md", "architecture.md", "contributing.md"}
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if not BUILT & {*page.relative_to(DOCS).parts}]
SUBMODULES = [name for name in tt.__all__ if type(getattr(tt, name)).__name__ == "module"]


def listed() -> set[str]:
    """Names that the pages of the API list, with their modules."""
    found: set[str] = set()
    for page in (DOCS / "reference" / "api").glob("*.rst"):
        module = ""
        for line in page.read_text(encoding="utf-8").splitlines():
            if line.startswith(".. currentmodule:: "):
                module = line.split()[-1]
            elif re.fullmatch(r" {3}\w+", line) and page.stem != "index":
                found.add(f"{module}.{line.strip()}")
    return found


def test_every_public_name_has_a_page_and_no_other():
    names = {f"throughtime.{name}" for name in tt.__all__ if name not in SUBMODULES}
    for module in SUBMODULES:
        names |= {f"throughtime.{module}.{name}" for name in dir(getattr(tt, module))}
    names |= {
        f"throughtime.compat.see_rnn.{name}"
        for name, thing in vars(see_rnn).items()
        if not name.startswith("_") and callable(thing)
    }
    returned = {name for name in listed() if name.startswith("throughtime.diagnosis.")}
    assert listed() - returned == names


def public() -> dict[str, object]:
    """List the functions and classes that have a page."""
    found = {}
    for name in listed():
        thing: object = tt
        for part in name.split(".")[1:]:
            thing = getattr(thing, part)
        found[name] = thing
    return found


def test_every_public_name_has_an_example():
    without = {name for name, thing in public().items() if ">>>" not in (inspect.getdoc(thing) or "")}
    assert without <= set(EXAMPLES)


@pytest.mark.parametrize("name", [name for name in EXAMPLES if "see_rnn" not in name])
def test_an_example_of_the_site_shows_what_its_name_is(name):
    shown = [line for line in example(name) if not line.startswith(">>>")]
    last = name.rpartition(".")[2]
    if issubclass(getattr(tt, last, str), (tt.ThroughTimeError, tt.ThroughTimeWarning)):
        kind = "StoreError" if last == "ThroughTimeError" else last  # the base of all
        assert any(line.startswith(f"{kind}: ") for line in shown)
    else:
        assert "Traceback" not in shown[0]
        assert last in shown[0] or last in ("Axis", "Panel", "Slider", "Leak")


def test_the_gallery_asks_twenty_questions():
    titles = [path.read_text(encoding="utf-8").splitlines()[1] for path in GALLERY]
    assert len(set(titles)) == 20
    assert all(title.endswith("?") for title in titles)


@pytest.mark.parametrize("path", GALLERY, ids=lambda path: path.stem)
def test_a_script_is_short_and_checks_what_it_concludes(path):
    text = path.read_text(encoding="utf-8")
    body = ast.parse(text).body
    assert len(text.splitlines()) <= 40
    assert ast.unparse(body[-1]).startswith("print("), "the last line is the conclusion"
    assert any(isinstance(each, ast.Assert) for each in body)
    assert any(ast.unparse(each).startswith("picture = ") for each in body)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_python_in_a_page_runs_when_the_site_is_built(page):
    assert "```python" not in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "page", [*PAGES, *ROOT.glob("*.md"), ROOT / "llms.txt"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_a_link_leads_to_a_file(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
    for link in links:
        is_built = BUILT & {*Path(link).parts} or (link.endswith("index") and "gallery" in link)
        assert is_built or (page.parent / link).exists(), link


@pytest.mark.parametrize(
    ("page", "query"),
    [
        ("tutorials/keras.md", "visualize lstm gradient"),
        ("tutorials/keras.md", "vanishing gradient lstm keras"),
        ("tutorials/torch.md", "pytorch hidden state gradient"),
        ("how_to/rollouts.md", "hidden state reset rl"),
        ("how_to/bidirectional.md", "bidirectional lstm last output"),
    ],
)
def test_the_search_finds_a_page_by_what_its_reader_looks_for(page, query):
    text = (DOCS / page).read_text(encoding="utf-8").lower()  # the search wants every word of a query
    assert [word for word in query.split() if word not in text] == []


@pytest.mark.parametrize("page", sorted(DOCS.rglob("index.md")), ids=lambda page: page.parent.name)
def test_every_page_is_in_the_table_of_contents(page):
    inside = {each.stem for each in PAGES if each.parent == page.parent and each != page}
    named = set(re.findall(r"^(\w+)$", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert inside <= named


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ('<script src="https://host/a.js"></script>', "page.html loads https://host/a.js"),
        ('<a href="gone.html">x</a>', "page.html links to gone.html, which is not there"),
        ('<p id="here"></p><a href="#there">x</a>', "page.html links to #there: no such place"),
        ('<p id="here"></p><a href="#here">x</a><a href="https://host">x</a>', None),
    ],
)
def test_the_check_of_a_built_site_finds(page, complaint, tmp_path):
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    command = [sys.executable, DOCS / "_check.py", tmp_path]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr.strip()) == ((1, complaint) if complaint else (0, ""))
