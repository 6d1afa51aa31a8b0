"""A pytest plugin that tells `tests/run.py` what happens, one JSON object a line.

Loaded by name with `-p tests.report_plugin`; the file is named by the variable THROUGHTIME_EVENTS.
"""

import json
import os
from pathlib import Path


class Reporter:
    """Writes how many tests there are, then each test's outcome once."""

    def __init__(self, path):
        self.file = Path(path).open("a", encoding="utf-8")  # noqa: SIM115 - open as long as pytest runs

    def emit(self, **event):
        self.file.write(json.dumps(event) + "\n")
        self.file.flush()

    def pytest_collection_finish(self, session):
        rows = [item.callspec.params.get("row") for item in session.items if hasattr(item, "callspec")]
        groups = {row.name: row.group for row in rows if hasattr(row, "group")}
        self.emit(total=len(session.items), groups=groups)

    def pytest_collectreport(self, report):
        if report.failed:
            self.emit(test=report.nodeid, outcome="failed")

    def pytest_runtest_logreport(self, report):
        # A test passes by its call; a failing set-up or tear-down fails it; a skip may come from either.
        if report.when == "call" or not report.passed:
            self.emit(test=report.nodeid, outcome=report.outcome)


def pytest_configure(config):
    if path := os.environ.get("THROUGHTIME_EVENTS"):
        config.pluginmanager.register(Reporter(path), "throughtime-events")
