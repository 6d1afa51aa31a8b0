"""The house rules: how long files and functions are, what importing the package loads.

Who may import whom stands in pyproject.toml, and import-linter checks it.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "throughtime"
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def test_no_module_is_a_drawer_for_everything():
    drawers = {"utils.py", "helpers.py", "common.py"}
    assert not [module for module in MODULES if module.rpartition("/")[2] in drawers]


def test_the_root_of_the_package_has_at_most_24_entries() -> None:
    entries = [path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 24, sorted(entries)


def test_files_have_at_most_300_lines():
    lengths = {module: len((PACKAGE / module).read_text(encoding="utf-8").splitlines()) for module in MODULES}
    assert not {module: length for module, length in lengths.items() if length > 300}


def test_functions_have_at_most_40_lines():
    long = [
        f"{module}:{node.name}"
        for module in MODULES
        for node in ast.walk(ast.parse((PACKAGE / module).read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and lines_of_code(node) > 40
    ]
    assert not long


def test_a_class_name_has_one_definition():
    """Adapters excepted, which name the same thing in each framework alike."""
    defined = [
        node.name
        for module in MODULES
        if not module.startswith("adapters/")
        for node in ast.walk(ast.parse((PACKAGE / module).read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    ]
    again = {name for name in defined if defined.count(name) > 1}
    assert again == {"MonitorCallback"}, "the callback of each training loop alone shares its name"


def test_takes_finds_annotations_as_texts():
    """It finds the rule of an argument by the text of its annotation, which this import keeps."""
    texts = {module: (PACKAGE / module).read_text(encoding="utf-8") for module in MODULES}
    taking = {module: text for module, text in texts.items() if re.search(r"^ *@takes\b", text, re.MULTILINE)}
    assert taking
    assert not [module for module, text in taking.items() if "from __future__ import annotations" not in text]


def test_no_modules_import_each_other_in_a_circle():
    """Imports within functions and for types alone are not counted."""
    TopologicalSorter({name(module): imported_by(module) for module in MODULES}).prepare()


def name(module: str) -> str:
    return ".".join(["throughtime", *module.removesuffix(".py").removesuffix("__init__").split("/")]).rstrip(
        "."
    )


def imported_by(module: str) -> set[str]:
    """List the modules that a module imports when it is imported."""
    names, found = {name(each) for each in MODULES}, set()
    package = ["throughtime", *module.split("/")[:-1]]
    for node in ast.parse((PACKAGE / module).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else []
            home = ".".join([*start, *([node.module] if node.module else [])])
            parts = {f"{home}.{each.name}" for each in node.names}
            found |= (parts & names) or {home}
    return found & names - {name(module)}


def lines_of_code(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Length without the docstring, which is as long as its reader needs."""
    first = function.body[0]
    is_documented = ast.get_docstring(function) is not None
    documentation = first.end_lineno - first.lineno + 1 if is_documented else 0
    return function.end_lineno - function.lineno + 1 - documentation


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_a_file_that_a_page_names_exists(page):
    known = {f"/{path.relative_to(ROOT).as_posix()}" for path in texts()}
    names = re.findall(r"`([\w/.]+\.(?:pyi?|md|toml))`", (ROOT / page).read_text(encoding="utf-8"))
    assert names
    assert not [name for name in names if not any(path.endswith(f"/{name}") for path in known)]


def test_importing_loads_no_framework_and_no_drawing_library():
    heavy = ["keras", "tensorflow", "jax", "torch", "matplotlib", "bokeh"]
    program = f"import sys, throughtime; print([name for name in {heavy} if name in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"


def test_no_file_names_a_place_on_one_machine():
    place = re.compile(r"/(?:work|root|home|Users)/\w")
    found = []
    for path in texts():
        text = path.read_bytes().decode("utf-8", errors="replace")
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in place.finditer(text)]
    assert not found


def texts() -> list[Path]:
    """Every file that the project ships, by folder: a copy without git is tested as well."""
    folders = [ROOT / name for name in ("src", "tests", "scripts", "benchmarks", "docs", "examples", ".ci")]
    files = [*ROOT.iterdir(), *(path for folder in folders for path in folder.rglob("*"))]
    return [path for path in files if path.is_file() and not {"__pycache__", ".git"} & {*path.parts}]
