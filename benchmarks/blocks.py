"""How everything is timed: in blocks, the reference before and after; a row is one JSON line.

An idle BLAS pool slows the next training step, so interleaving two measurements would flatter us.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from statistics import median

SECONDS_OF_A_BLOCK = 1.0
FEWEST_CALLS = 3
DRIFT = 0.1

Row = dict[str, str | float]


def emit(rows: Iterable[Row]) -> None:
    """Print each row as soon as it is measured."""
    for row in rows:
        print(json.dumps(row), flush=True)


def block(call: Callable[[], object]) -> float:
    """Median seconds of a call, over one block of them."""
    times: list[float] = []
    while len(times) < FEWEST_CALLS or sum(times) < SECONDS_OF_A_BLOCK:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times)


def ratios(
    calls: dict[str, Callable[[], object]], reference: Callable[[], object]
) -> Iterator[tuple[str, float]]:
    """Seconds of each call ÷ seconds of the reference, or NaN where the reference drifted twice.

    A block of the reference stands before and after every call's block; the ratio is to their mean.
    First calls, which compile, are outside.
    """
    reference()
    before = block(reference)
    for name, call in calls.items():
        call()
        for _ in range(2):
            seconds, after = block(call), block(reference)
            steady, mean = abs(after / before - 1) <= DRIFT, (before + after) / 2
            before = after
            if steady:
                break
        yield name, seconds / mean if steady else float("nan")
