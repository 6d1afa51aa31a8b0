"""How everything is timed: in blocks, the reference before and after; a row is one JSON line.

An idle BLAS pool slows the next training step, so interleaving two measurements would flatter us.
"""

import json
import time
from collections.abc import Callable, Iterable
from statistics import median

SECONDS_OF_A_BLOCK = 1.5
DRIFT = 0.1

Row = dict[str, str | float]


def emit(rows: Iterable[Row]) -> None:
    """Print each row as soon as it is measured."""
    for row in rows:
        print(json.dumps(row), flush=True)


def block(call: Callable[[], object]) -> float:
    """Median seconds of a call, over one block of them."""
    times: list[float] = []
    while len(times) < 5 or sum(times) < SECONDS_OF_A_BLOCK:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times)


def ratios(calls: dict[str, Callable[[], object]], reference: Callable[[], object]) -> dict[str, float]:
    """Seconds of each call ÷ seconds of the reference, or NaN where the reference drifted twice."""
    for call in (reference, *calls.values()):
        call()
    for _ in range(2):
        before = block(reference)
        times = {name: block(call) for name, call in calls.items()}
        after = block(reference)
        if abs(after / before - 1) <= DRIFT:
            return {name: seconds / before for name, seconds in times.items()}
    return dict.fromkeys(calls, float("nan"))
