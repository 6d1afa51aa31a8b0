"""The memory that one capture takes, beside what it was said to need; for processes of their own."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

from throughtime._common.memory.budget import Budget, Need


def highest() -> int:
    """Most that was ever resident; getrusage would begin with what the process that started us held."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize()


def write_figures(probe: Any, x: Any, y: Any) -> None:
    """Capture once and write the figures, in bytes, to standard output; the last thing a process does."""
    needs: list[tuple[Budget, Need]] = []
    check = Budget.check
    Budget.check = lambda self, need: (needs.append((self, need)), check(self, need))[1]
    before = resident()
    tree = probe(x, y)
    peak = highest() - before
    returned = sum(node.to_dataset().nbytes for node in tree.leaves)
    judged, need = needs[-1]
    figures = {
        "needed": judged.needed(need),
        "phases": [phase.of(judged.part) for phase in need.phases],
        "peak": peak,
        "returned": returned,
        "chunks": tree.attrs.get("chunks", 1),
    }
    json.dump(figures, sys.stdout)


def arguments() -> tuple[str, int, int, int, int, str, float | None]:
    """Read KIND LAYERS UNITS SAMPLES STEPS QUANTITIES [BUDGET] from the command line."""
    kind, count, units, samples, steps, quantities, *budget = sys.argv[1:]
    given = float(budget[0]) if budget else None
    return kind, int(count), int(units), int(samples), int(steps), quantities, given
