"""Simulate a sweep on many workers with measured costs: where the time goes, and which part limits its size.

`python benchmarks/sweeps/simulation.py`. The model: the caller submits one task after another, the scheduler hands
them out one after another to the worker that is free first, and takes their results. A worker loads the weights when
the checkpoint changes, captures, and writes one file; the store takes a number of files at once. The parts of a
checkpoint are added up in a task of their own as soon as all are there; the caller writes all records at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from heapq import heappop, heappush


@dataclass(frozen=True)
class Costs:
    """Seconds; `figures.py` measures all but the first three."""

    capture: float = 1.0  # of a shard: choose it by the size of the shards
    weights: float = 0.5  # a checkpoint read from a network file system
    file: float = 0.01  # a part written there, or read
    at_once: int = 32  # files that the store takes at the same time
    task: float = 0.012  # reduction, compression and the rest of a task
    submit: float = 0.0005
    schedule: float = 0.001
    add: float = 0.004  # a part read and added
    record: float = 0.02


class Server:
    """Serves a number of requests at the same time, in their order."""

    def __init__(self, places: int) -> None:
        self.free, self.busy = [0.0] * places, 0.0

    def serve(self, at: float, seconds: float) -> float:
        start = max(at, heappop(self.free))
        heappush(self.free, start + seconds)
        self.busy += seconds
        return start + seconds


def simulated(checkpoints: int, shards: int, workers: int, costs: Costs) -> dict[str, float]:
    """Return the seconds in all, and how busy each part of the machine is."""
    caller, scheduler, store = Server(1), Server(1), Server(costs.at_once)
    free = [(0.0, number) for number in range(workers)]
    at_checkpoint = [-1] * workers
    busy = 0.0
    done = [0.0] * checkpoints
    for number in range(checkpoints * shards):
        checkpoint = number // shards
        known = caller.serve(0.0, costs.submit)
        idle, worker = heappop(free)
        given = scheduler.serve(max(known, idle), costs.schedule)
        loads = at_checkpoint[worker] != checkpoint
        at_checkpoint[worker] = checkpoint
        captured = given + loads * costs.weights + costs.capture + costs.task
        written = store.serve(captured, costs.file)
        heappush(free, (written, worker))
        busy += written - given
        done[checkpoint] = max(done[checkpoint], written)
        if number % shards == shards - 1:  # its parts are added up by the next worker that is free
            idle, worker = heappop(free)
            start = scheduler.serve(max(done[checkpoint], idle), costs.schedule)
            seconds = shards * (costs.add + costs.file)
            heappush(free, (start + seconds, worker))
            done[checkpoint] = start + seconds
            busy += seconds
    worked = max(max(done), max(free)[0])
    whole = worked + checkpoints * costs.record
    return {
        "minutes": whole / 60,
        "workers": busy / workers / whole,
        "caller": (caller.busy + checkpoints * costs.record) / whole,
        "scheduler": scheduler.busy / whole,
        "store": store.busy / costs.at_once / whole,
        "writing": checkpoints * costs.record / whole,
    }


def main() -> None:
    costs = Costs()
    cases = {"1,000 × 100 on 100, 1 s": (1000, 100, 100, costs)}
    for seconds in (0.05, 0.1, 0.2, 10.0):
        cases[f"1,000 × 100 on 100, {seconds:g} s"] = (1000, 100, 100, replace(costs, capture=seconds))
    for workers in (200, 400, 800, 1600):
        cases[f"1,000 × 100 on {workers}, 1 s"] = (1000, 100, workers, costs)
    cases["10,000 × 10 on 100, 1 s"] = (10_000, 10, 100, costs)
    cases["100 × 1,000 on 100, 1 s"] = (100, 1000, 100, costs)
    for name, case in cases.items():
        found = simulated(*case)
        shares = ", ".join(f"{part} {share:.0%}" for part, share in found.items() if part != "minutes")
        print(f"{name}: {found['minutes']:.1f} minutes; busy: {shares}")


if __name__ == "__main__":
    main()
