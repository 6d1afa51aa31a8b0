"""The tests of one framework on one Python, each in an environment of its own: `nox -s "torch-3.13"`.

`scripts/test` runs them all on one Python, two at a time in one environment; `tests/run.py` has the commands.
"""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path

import nox

PYTHONS = ("3.11", "3.12", "3.13")
# Session -> name of the suite in tests/run.py.
SUITES = {
    "core": "core",
    "tensorflow": "tensorflow",
    "jax": "jax",
    "torch": "torch",
    "native-torch": "native torch",
    "jax-programs": "jax programs",
    "tf_keras": "tf_keras",
    "graph": "tf_keras graph",
    "agreement": "agreement",
}
PROJECT = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
LOWEST = ("tests/torch", "tests/diagnostics", "tests/cells", "tests/store")
EXTRAS = {*PROJECT["optional-dependencies"]}
nox.options.sessions = ["check"]
nox.options.default_venv_backend = "uv|virtualenv"  # uv, where it is installed, makes environments in seconds


def run_suite(session: nox.Session, suite: str) -> None:
    session.install("--editable", ".[test]")
    session.run("python", "tests/run.py", "--suite", suite, *session.posargs)


for name, suite in SUITES.items():
    nox.session(python=PYTHONS, name=name, tags=["frameworks"])(
        lambda session, suite=suite: run_suite(session, suite)
    )


@nox.session(python="3.11")
def check(session: nox.Session) -> None:
    """Lint, format, types, imports, dependencies and spelling."""
    session.install("--editable", ".[test]")
    session.run("bash", "scripts/check", external=True, env={"THROUGHTIME_VENV": session.virtualenv.location})


@nox.session(python="3.11")
def keras2(session: nox.Session) -> None:
    """Keras 2.15, which TensorFlow 2.15 brings, on the last Python that it runs on."""
    session.install("--editable", ".[keras2]")
    session.run("python", "-m", "pytest", "tests/tf_keras", env={"THROUGHTIME_SUITE": "Keras 2.15"})


@nox.session(python="3.11")
def lowest(session: nox.Session) -> None:
    """Test the lowest versions of the required dependencies, with native PyTorch."""
    extras = PROJECT["optional-dependencies"]
    named = [*PROJECT["dependencies"], *extras["netcdf"], *extras["parquet"]]
    lowest_versions = [re.sub(r">=\s*", "==", each) for each in named]
    session.install(*lowest_versions, "torch>=2.6", "keras>=3.10", "pytest", "pytest-timeout", "hypothesis")
    session.install("--no-deps", "--editable", ".")
    # Old versions use what newer ones of their own dependencies deprecate.
    command = ["-m", "pytest", "-W", "default::DeprecationWarning", *LOWEST]
    session.run("python", *command, env={"KERAS_BACKEND": "torch"})


@nox.session(python="3.13")  # which counts lines at little cost
def coverage(session: nox.Session) -> None:
    """Which lines of the package the tests run, the slow ones aside; pyproject.toml has the floor."""
    session.install("--editable", ".[test]", "coverage>=7.10")
    file = Path(session.virtualenv.location, "coverage")
    environment = {"COVERAGE_CORE": "sysmon", "COVERAGE_FILE": str(file)}
    for suite in ("core", "torch", "native torch", "jax programs"):
        command = ["tests/run.py", "--suite", suite, "-m", "not slow"]
        session.run("coverage", "run", *command, env=environment)
    session.run("coverage", "combine", env=environment)
    session.run("coverage", "report", "--skip-covered", "--sort=cover", env=environment)


@nox.session(python=PYTHONS)
@nox.parametrize("extra", ["none", *sorted(EXTRAS - {"docs", "test"})])
def extras(session: nox.Session, extra: str) -> None:
    """Install throughtime with one extra and nothing else, and do what the extra is for."""
    if extra == "keras2" and session.python != "3.11":
        session.skip("TensorFlow 2.15 runs on Python 3.11 at most")
    needed = ["torch>=2.6"] if extra in ("demo", "sweep") else []
    session.install("." if extra == "none" else f".[{extra}]", *needed)
    session.run("python", "tests/extras.py", extra)
    shutil.rmtree(session.virtualenv.location)  # all of them together would fill the disk


@nox.session(python="3.11")
def docs(session: nox.Session) -> None:
    """Build the site, with every page and script executed and warnings as errors."""
    session.run("bash", "scripts/docs", external=True, env={"THROUGHTIME_VENV": session.virtualenv.location})
