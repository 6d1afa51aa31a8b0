"""Writes what a capture was said to need and the memory that it took: a process of its own for each capture.

All in bytes; with a budget what its parts need.

python -m tests.keras.peak_memory KIND LAYERS UNITS SAMPLES STEPS QUANTITIES [BUDGET]
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import keras
import numpy as np

import throughtime as tt
from throughtime._budget import Budget, Need

KINDS = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "simple_rnn": keras.layers.SimpleRNN}
FEATURES = 8


def highest() -> int:
    """Most that was ever resident; getrusage would begin with what the process that started us held."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize()


def main(
    kind: str, count: int, units: int, samples: int, steps: int, quantities: str, budget: float | None
) -> None:
    keras.utils.set_random_seed(0)
    recurrent = [KINDS[kind](units, return_sequences=True) for _ in range(count)]
    model = keras.Sequential([keras.Input((None, FEATURES)), *recurrent, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x, y = np.ones((samples, steps, FEATURES), "float32"), np.ones((samples, steps, 1), "float32")
    probe = tt.Probe(model, quantities=quantities, budget=budget)
    probe(x[:, :4], y[:, :4])  # compiling takes memory of its own
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


if __name__ == "__main__":
    kind, count, units, samples, steps, quantities, *budget = sys.argv[1:]
    main(
        kind,
        int(count),
        int(units),
        int(samples),
        int(steps),
        quantities,
        float(budget[0]) if budget else None,
    )
