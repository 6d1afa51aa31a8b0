"""Simulate a sweep on many workers with measured costs: where the time goes, and which part limits its size.

`python benchmarks/sweeps/simulation.py`. The model: the caller submits one task after another. The scheduler
hands them out one after another, in their order, to idle workers. A worker loads weights if the checkpoint is
another one, captures, and writes one file; the store takes a number of files at the same time. The worker
whose part completes a group of eight adds it up, and so on. The caller writes the record of each checkpoint
while others run.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from heapq import heappop, heappush

GROUP = 8  # files that one addition takes


@dataclass(frozen=True)
class Costs:
    """Seconds; `figures.py` measures all but the first four."""

    capture: float = 1.0  # of a shard: choose it by the size of the shards
    weights: float = 0.1  # a checkpoint read from a network file system
    file: float = 0.01  # a part written there, or read
    at_once: int = 32  # files that the store takes at the same time
    task: float = 0.006  # reduction, compression and the rest of a task
    submit: float = 0.0003
    schedule: float = 0.001
    add: float = 0.029  # a part of 500 kB read and added
    record: float = 0.038


class Simulation:
    """All events in the order of their time: (seconds, task, kind, worker).

    Kinds are -2 for a task that was submitted, -1 for one that has captured, 0 for one whose part is written,
    and n for one that has added up parts n times.
    """

    def __init__(self, checkpoints: int, shards: int, workers: int, costs: Costs) -> None:
        self.costs, self.shards, self.count = costs, shards, checkpoints * shards
        self.events = [(costs.submit * (task + 1), task, -2, -1) for task in range(self.count)]
        self.ready: deque[int] = deque()
        self.idle, self.places = list(range(workers)), [0.0] * costs.at_once
        self.loaded = [-1] * workers
        self.left: dict[tuple[int, int, int], int] = {}
        self.now = self.scheduled = 0.0
        self.seconds = dict.fromkeys(("captures", "weights", "tasks", "store", "adding up"), 0.0)

    def run(self) -> None:
        while self.events:
            self.now, task, kind, worker = heappop(self.events)
            if kind == -2:
                self.ready.append(task)
            elif kind == -1:
                self.write(task, worker)
            else:
                self.add_up(task, kind, worker)
            while self.ready and self.idle:
                self.start(self.ready.popleft(), self.idle.pop())

    def add_up(self, task: int, level: int, worker: int) -> None:
        """Add up the group that the file of this level completes, if it does."""
        checkpoint, shard = divmod(task, self.shards)
        files = -(-self.shards // GROUP**level)  # at this level
        place = shard // GROUP ** (level + 1)
        below = min(GROUP, files - place * GROUP)
        key = checkpoint, level, place
        self.left[key] = self.left.get(key, below) - 1
        if self.left[key] or (files == 1 and level):
            self.idle.append(worker)
            return
        self.seconds["adding up"] += below * self.costs.add
        end = self.stored(below + 1) + below * self.costs.add
        heappush(self.events, (end, task, level + 1, worker))

    def stored(self, files: int) -> float:
        """Read or write files one after another; return when the last is done."""
        end = max(self.now, heappop(self.places)) + files * self.costs.file
        heappush(self.places, end)
        self.seconds["store"] += end - self.now
        return end

    def start(self, task: int, worker: int) -> None:
        costs, checkpoint = self.costs, task // self.shards
        self.scheduled = max(self.now, self.scheduled) + costs.schedule
        loading = costs.weights * (self.loaded[worker] != checkpoint)
        self.loaded[worker] = checkpoint
        spent = {"weights": loading, "captures": costs.capture, "tasks": costs.task}
        for name, seconds in spent.items():
            self.seconds[name] += seconds
        heappush(self.events, (self.scheduled + sum(spent.values()), task, -1, worker))

    def write(self, task: int, worker: int) -> None:
        heappush(self.events, (self.stored(1), task, 0, worker))


def simulated(checkpoints: int, shards: int, workers: int, costs: Costs) -> str:
    """Describe how long it takes, where the workers' time goes, and how busy all else is."""
    simulation = Simulation(checkpoints, shards, workers, costs)
    simulation.run()
    whole, tasks = simulation.now + costs.record, simulation.count
    shares = {name: seconds / workers / whole for name, seconds in simulation.seconds.items()}
    shares["idle"] = 1 - sum(shares.values())
    files = tasks * (2 + 2 / GROUP)  # each part is written and read, and each sum of eight
    busy = {
        "caller": (tasks * costs.submit + checkpoints * costs.record) / whole,
        "scheduler": tasks * costs.schedule / whole,
        "store": files * costs.file / costs.at_once / whole,
    }
    parts = [", ".join(f"{name} {share:.0%}" for name, share in each.items()) for each in (shares, busy)]
    return f"{whole / 60:.1f} minutes; workers: {parts[0]}; busy: {parts[1]}"


def main() -> None:
    costs = Costs()
    for workers, seconds in ((100, 1.0), (100, 0.1), (100, 10.0), (400, 1.0), (800, 1.0), (1600, 1.0)):
        case = 1000, 100, workers, replace(costs, capture=seconds)
        print(f"1,000 × 100 on {workers}, captures of {seconds:g} s: {simulated(*case)}")
    slow = replace(costs, at_once=4, file=0.05)
    print(f"the same on 100, a store of 80 files a second: {simulated(1000, 100, 100, slow)}")
    print(f"10,000 × 10 on 100: {simulated(10_000, 10, 100, costs)}")


if __name__ == "__main__":
    main()
