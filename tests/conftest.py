"""Fixtures and session rules that hold for every test."""

from __future__ import annotations

import json
import os
import random
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

with suppress(ImportError):  # PyTorch with GPU libraries brings it
    import triton  # noqa: F401 - its LLVM and TensorFlow's live in one process if it comes first
with suppress(ImportError):  # the environment with Keras 2 does without
    from hypothesis import settings

    # The same examples in every run, however slow the machine.
    settings.register_profile("steady", derandomize=True, deadline=None, database=None)
    settings.load_profile("steady")

FULL = "THROUGHTIME_FULL"
QUICK = "THROUGHTIME_QUICK"
RESULTS = "THROUGHTIME_RESULTS"
SUITE = "THROUGHTIME_SUITE"
# JAX compiles and TensorFlow traces each model anew. A quick run takes one in so many of their tests;
# torch runs all of tests/keras.
ONE_IN = {"jax": 8, "tensorflow": 8, "tf_keras": 3, "tf_keras graph": 4}
# Of a test with more cases than this, the core of a quick run takes one case in three.
MANY_CASES = 20
# What a machine may lack; `tests/run.py` prints a line on each.
MAY_LACK = ("there is no Chromium", "there is no environment with Keras 2")
_results: dict[str, str] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the slow tests of a quick run, and most of what torch runs as well."""
    if os.environ.get(QUICK) == "1":
        suite, cases = os.environ.get(SUITE, ""), Counter(map(_test, items))
        taken, left = [], []
        for each in items:
            many = suite == "core" and cases[_test(each)] > MANY_CASES
            one_in = 3 if many else ONE_IN.get(suite, 1)
            is_taken = not each.get_closest_marker("slow") and _number(each) % one_in == 0
            (taken if is_taken else left).append(each)
        config.hook.pytest_deselected(items=left)
        items[:] = taken


def _test(item: pytest.Item) -> str:
    """Give the name that all cases of a test share."""
    return item.nodeid.partition("[")[0]


def _number(item: pytest.Item) -> int:
    """Give a test a number that is the same in every run."""
    return zlib.crc32(item.nodeid.encode())


def _fail_skipped(report: Any, what: str) -> None:
    """Turn a skipped test into a failure if the environment forbids skipping."""
    if os.environ.get(FULL) == "1" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        if any(each in str(reason) for each in MAY_LACK):
            return
        report.outcome = "failed"
        report.longrepr = f"{what} was skipped, which {FULL}=1 forbids: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    _fail_skipped(report, item.nodeid)
    row = getattr(item, "callspec", None) and item.callspec.params.get("row")
    if hasattr(row, "oracle") and (report.when == "call" or report.failed):
        previous = _results.get(row.name, "passed")
        _results[row.name] = "passed" if report.passed and previous == "passed" else "failed"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Any:
    report = yield
    _fail_skipped(report, collector.nodeid)
    return report


def pytest_sessionfinish() -> None:
    """Leave the results of the support table for whoever prints it."""
    if _results and (folder := os.environ.get(RESULTS)):
        path = Path(folder) / f"{os.environ[SUITE]}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dict(sorted(_results.items())), indent=1) + "\n", encoding="utf-8")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Each test draws the same weights and data in every run, whichever tests ran before."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
    for name in ("keras", "tf_keras"):
        if name in sys.modules:
            sys.modules[name].utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    """No figure of one test is open in the next."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
