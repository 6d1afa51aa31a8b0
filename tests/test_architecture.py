"""The house rules: who imports whom, how long files and functions are, what importing the package loads."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "throughtime"
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))

# Room -> what its modules may import besides the standard library and their own folder. A room is a
# module or a folder (ends in "/"); the longest that fits a module counts. A name of this package stands
# for itself and, where it is a folder, for its content.
TORCH = {
    "_memory/budget",
    "_errors",
    "_data/structures",
    "_data/random_states",
    "adapters/records",
    "_data/restoring",
    "adapters/alike",
    "adapters/attributes",
    "adapters/needs",
    "adapters/selection",
    "numpy",
    "torch",
}
PLOTS = {
    "_drawing/colors",
    "_errors",
    "_drawing/scale",
    "_vocabulary",
    "_tree",
    "_drawing/theme",
    "diagnostics",
    "numpy",
    "picture",
    "xarray",
}
# What the adapters of Keras 3 and of Keras 2 share: the modules beside their folders.
OF_EVERY_KERAS = {
    "adapters/attributes",
    "adapters/needs",
    *(f"adapters/keras/{path.stem}" for path in (PACKAGE / "adapters/keras").glob("*.py")),
}
OF_EVERY_ADAPTER = {
    "_memory/budget",
    "_errors",
    "_data/random_states",
    "adapters/records",
    "_data/restoring",
    "adapters/alike",
    "numpy",
}
KERAS_3 = OF_EVERY_ADAPTER | OF_EVERY_KERAS | {"keras"}
KERAS_2 = OF_EVERY_ADAPTER | OF_EVERY_KERAS | {"adapters/selection", "tensorflow"}
OF_A_LIVE_FIGURE = {"_drawing/scale", "_drawing/theme", "bokeh", "numpy", "render"}
BORDER = {"_arguments", "_arguments/rules"}  # what public functions take: whoever has one may import them
MAY_IMPORT = {
    "__init__": {"_errors"},
    "_data/": {"_errors", "numpy"},
    "_memory/": {"_errors", "dask", "numpy"},
    "_capture/": {
        "_cell",
        "_cell_registry",
        "_data",
        "_data/batch",
        "_data/structures",
        "_errors",
        "_memory/budget",
        "_memory/free",
        "_text/tables",
        "_tree",
        "_vocabulary",
        "adapters",
        "adapters/records",
        "cells",
        "numpy",
        "pandas",
        "xarray",
    },
    "_drawing/": {"_errors", "_text/printable", "numpy"},
    "_text/": {"markupsafe", "rich"},
    "_testing/": {"_errors", "_tree", "_vocabulary", "numpy", "xarray"},
    "_arguments/": {
        "_data/structures",
        "_errors",
        "_text/printable",
        "_tree",
        "_vocabulary",
        "matplotlib",
        "numpy",
        "xarray",
    },
    "_errors": set(),
    "adapters/records": {"numpy"},
    "cells/": {"_errors", "adapters/records", "numpy", "threadpoolctl"},
    "cells/own": {"_cell", "_errors", "numpy"},
    "cells/own_step": {"_cell", "_errors", "numpy"},
    "_vocabulary": {"_errors"},
    "_cell": {"_errors", "_vocabulary", "_tree", "numpy"},
    "_cell_registry": {"_cell", "_errors"},
    "_alarm": {"_errors", "rich"},
    "diagnostics/thresholds": set(),
    "diagnostics/statistics": {"numpy", "scipy"},
    "adapters/optimizer": {"numpy"},
    "_versions": set(),
    "_tree": {"_errors", "_vocabulary", "numpy", "xarray"},
    "_monitor/": {
        "_alarm",
        "_memory/budget",
        "_errors",
        "_capture/solve",
        "_capture/label",
        "_live",
        "_monitor",
        "adapters/optimizer",
        "_capture/probe",
        "_vocabulary",
        "_tree",
        "_store",
        "diagnostics/thresholds",
        "callbacks",
        "cells",
        "diagnostics",
        "numpy",
        "xarray",
        "_versions",
    },
    "_live/": {
        "_alarm",
        "_errors",
        "_monitor",
        "_text/printable",
        "_tree",
        "_vocabulary",
        "_store",
        "diagnostics/thresholds",
        "diagnosis",
        "diagnostics",
        "markupsafe",
        "numpy",
        "plots",
        "xarray",
    },
    "_live/figures": OF_A_LIVE_FIGURE,
    "_live/profile": OF_A_LIVE_FIGURE,
    "_live/evolution": OF_A_LIVE_FIGURE | {"_drawing/colors", "_drawing/pooling", "plots"},
    "_live/page": {
        "_errors",
        "_text/printable",
        "_drawing/theme",
        "diagnostics/thresholds",
        "bokeh",
        "diagnosis",
        "numpy",
        "render",
        "plots",
    },
    "_live/server": {"_errors", "bokeh", "tornado"},
    # The command uses the public names, which are no room, and the one check of certificates.
    "_cli/": {
        "_alarm",
        "_errors",
        "_text/printable",
        "_live",
        "_tree",
        "_vocabulary",
        "_store",
        "diagnostics",
        "numpy",
        "pandas",
        "rich",
        "typer",
        "xarray",
        "_versions",
    },
    "callbacks/": {"_errors"},
    "_monitor/record": {"xarray"},
    "_monitor/histograms": {"numpy", "xarray"},
    # Drawing libraries load when a sink asks for an image.
    "_monitor/images": {"_errors", "xarray"},
    "_monitor/outlets": {"_errors"},
    "_monitor/gradient_norms": {"_alarm", "_errors", "numpy", "xarray"},
    "sinks/": {"_errors", "_monitor", "sinks"},
    "sinks/tensorboard": {"_monitor", "numpy", "sinks"},
    "_store/": {"_errors", "_store", "filelock", "google_crc32c", "numcodecs", "numpy", "xarray", "zarr"},
    "diagnostics/": {
        "_cell_registry",
        "_errors",
        "_vocabulary",
        "_tree",
        "diagnostics/statistics",
        "diagnostics/thresholds",
        "cells",
        "numpy",
        "scipy",
        "xarray",
    },
    "diagnosis/": {
        "_alarm",
        "_data/batch",
        "_data/structures",
        "cells",
        "_errors",
        "_capture/lag_matrix",
        "adapters/optimizer",
        "_capture/probe",
        "_tree",
        "_vocabulary",
        "_text/tables",
        "diagnostics/statistics",
        "diagnostics/thresholds",
        "diagnostics",
        "numpy",
        "pandas",
        "rich",
        "scipy",
        "xarray",
    },
    "_check_cell": {"_cell", "_errors", "cells", "numpy"},
    "testing": {
        "_check_cell",
        "_testing/weight_layouts",
        "_vocabulary",
        "_tree",
        "_testing/closed_forms",
        "numpy",
        "xarray",
    },
    "adapters/__init__": {"_errors"},
    "adapters/attributes": {"_data/restoring"},
    "adapters/needs": {"_memory/budget"},
    "adapters/alike": {"adapters/records"},
    "adapters/selection": {"_errors"},
    "adapters/keras/": {
        "_memory/budget",
        "_errors",
        "adapters/records",
        "adapters/attributes",
        "adapters/needs",
        "numpy",
    },
    "adapters/keras/own_cells": {
        "_cell",
        "_cell_registry",
        "_errors",
        "adapters/records",
        "_vocabulary",
        "_tree",
    },
    "adapters/keras/keras2/": KERAS_2,
    "adapters/keras/keras3/": KERAS_3,
    "adapters/keras/keras3/gradient_tensorflow": KERAS_3 | {"tensorflow"},
    "adapters/keras/keras3/gradient_jax": KERAS_3 | {"jax"},
    "adapters/keras/keras3/gradient_torch": KERAS_3 | {"torch"},
    "adapters/torch/": TORCH,
    "_classic/": {"_errors", "_drawing/pooling", "_text/printable", "matplotlib", "numpy"},
    "_classic/panels": {"_data/structures", "_errors", "_text/printable", "matplotlib", "numpy"},
    "_classic/gradients": {"_capture/probe", "_errors", "adapters/records", "numpy"},
    # Arrays are read, counted and told without drawing.
    "_classic/data": {"_data/structures", "_errors", "_text/printable", "numpy"},
    "_classic/histograms": {"_errors", "_text/printable", "numpy"},
    "_classic/titles": set(),
    # What a picture is, before anything is drawn.
    # A picture shows itself in a notebook: it loads the renderers then.
    "picture": {
        "_errors",
        "_drawing/marks",
        "_text/printable",
        "_drawing/scale",
        "_drawing/theme",
        "numpy",
        "render",
    },
    "plots/": PLOTS,
    "plots/recorded": PLOTS | {"diagnosis"},
    "plots/palettes": {"_drawing/colors", "_errors", "matplotlib", "numpy"},
    "render/": {"_drawing/colors", "_drawing/scale", "_drawing/theme", "numpy", "picture"},
    "render/matplotlib": {"PIL", "_drawing/theme", "matplotlib", "numpy", "picture"},
    "render/matplotlib_marks": {
        "_drawing/colors",
        "_drawing/pooling",
        "_drawing/scale",
        "_drawing/theme",
        "matplotlib",
        "numpy",
        "picture",
    },
    "render/bokeh": {"_drawing/theme", "bokeh", "picture"},
    "render/matplotlib_room": {"_errors", "_drawing/theme", "matplotlib", "picture"},
    "render/bokeh_text": {"bokeh"},
    "render/bokeh_marks": {
        "_drawing/colors",
        "_drawing/pooling",
        "_text/printable",
        "_drawing/scale",
        "_drawing/theme",
        "bokeh",
        "numpy",
        "picture",
    },
    "render/page": {"_text/printable", "_drawing/theme", "bokeh", "jinja2", "markupsafe", "picture"},
    "render/report": {"_text/tables", "_drawing/theme", "bokeh", "markupsafe", "picture"},
    "_report/": {
        "_alarm",
        "_errors",
        "_tree",
        "render/save",
        "_vocabulary",
        "_capture/summary",
        "_text/tables",
        "_drawing/theme",
        "cells",
        "diagnosis",
        "diagnostics",
        "numpy",
        "picture",
        "plots",
        "render",
        "xarray",
        "_versions",
    },
    "render/save": {"_errors", "_drawing/theme", "picture", "render"},
    # The demo uses the public names only, which are no room.
    "_demo/": {
        "_alarm",
        "_demo",
        "diagnosis",
        "diagnostics",
        "matplotlib",
        "numpy",
        "rich",
        "sklearn",
        "xarray",
    },
    "_demo/torch_networks": {"_demo", "torch"},
}
LONG_FILES = {  # file -> why it may have more than 300 lines
    "adapters/keras/collect.py": "one name a line in a long import",
    "_monitor/monitor.py": "a public class whose docstrings name every error",
    "_capture/probe.py": "a public class whose docstrings name every error",
    "testing.py": "public functions of a few lines whose docstrings name every error",
}
LONG_FUNCTIONS = {  # file:function -> why it may have more than 40 lines, docstring not counted
    "_classic/show_0d.py:show_features_0D": "the classic arguments, one a line",
    "_classic/show_2d.py:show_features_2D": "the classic arguments, one a line",
    "_classic/show_hist.py:show_features_hist": "the classic arguments, one a line",
}


def room_of(module: str) -> str | None:
    name = module.removesuffix(".py")
    fitting = [room for room in MAY_IMPORT if room == name or (room.endswith("/") and name.startswith(room))]
    return max(fitting, key=len, default=None)


def imports(module: str) -> set[str]:
    """Top-level names of outside libraries, and rooms of this package, that a module imports."""
    package = ["throughtime", *module.split("/")[:-1]]
    names = set()
    for node in ast.walk(ast.parse((PACKAGE / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
            origin = ".".join(filter(None, (base, node.module)))
            names |= {f"{origin}.{alias.name}" for alias in node.names} if is_own(origin) else {origin}
    outside = {name.partition(".")[0] for name in names if not is_own(name)} - sys.stdlib_module_names
    return outside | {inside(name) for name in names if is_own(name)} - {""}


def is_own(name: str) -> bool:
    return name == "throughtime" or name.startswith("throughtime.")


def inside(name: str) -> str:
    """Turn `throughtime.adapters.keras.keras3.find.walk` into `adapters/keras/find`."""
    parts = name.split(".")[1:]
    while parts and not (
        PACKAGE.joinpath(*parts).with_suffix(".py").exists() or PACKAGE.joinpath(*parts).is_dir()
    ):
        parts = parts[:-1]
    return "/".join(parts)


def is_allowed(name: str, module: str) -> bool:
    folder = module.rpartition("/")[0]
    if folder == "adapters/keras" and name.startswith(("adapters/keras/keras2", "adapters/keras/keras3")):
        return False
    if folder and (name == folder or name.startswith(f"{folder}/")):
        return True
    allowed = MAY_IMPORT[room_of(module)] | BORDER
    return any(name == each or name.startswith(f"{each}/") for each in allowed)


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_only_what_its_room_may(module):
    assert room_of(module), f"{module} is new: give it an entry in MAY_IMPORT"
    # The package's own entrance names its rooms lazily, for type checkers only.
    forbidden = {name for name in imports(module) if module != "__init__.py" and not is_allowed(name, module)}
    assert not forbidden, f"{module} may not import {sorted(forbidden)}"


def test_every_room_exists():
    names = [module.removesuffix(".py") for module in MODULES]
    empty = [room for room in MAY_IMPORT if not any(room_of(name) == room for name in names)]
    assert not empty, f"MAY_IMPORT speaks of {empty}, which are gone"


def test_no_module_is_a_drawer_for_everything():
    drawers = {"utils.py", "helpers.py", "common.py"}
    assert not [module for module in MODULES if module.rpartition("/")[2] in drawers]


def test_files_are_short():
    lengths = {module: len((PACKAGE / module).read_text(encoding="utf-8").splitlines()) for module in MODULES}
    long = {module for module, length in lengths.items() if length > 300}
    assert long == set(LONG_FILES), "a file over 300 lines wants a reason, and a reason wants such a file"


def test_functions_are_short():
    long = set()
    for module in MODULES:
        for node in ast.walk(ast.parse((PACKAGE / module).read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and lines_of_code(node) > 40:
                long.add(f"{module}:{node.name}")
    assert long == set(LONG_FUNCTIONS), (
        "a function over 40 lines wants a reason, and a reason such a function"
    )


def lines_of_code(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Length without the docstring, which is as long as its reader needs."""
    first = function.body[0]
    is_told = ast.get_docstring(function) is not None
    told = first.end_lineno - first.lineno + 1 if is_told else 0
    return function.end_lineno - function.lineno + 1 - told


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
    folders = [ROOT / name for name in ("src", "tests", "scripts", "benchmarks", "docs", ".ci")]
    files = [*ROOT.iterdir(), *(path for folder in folders for path in folder.rglob("*"))]
    return [path for path in files if path.is_file() and not {"__pycache__", ".git"} & {*path.parts}]
