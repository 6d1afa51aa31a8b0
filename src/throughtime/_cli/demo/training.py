"""Trains a network on the digits, with captures early and late and a monitor throughout."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from rich.progress import Progress
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import throughtime as tt
from throughtime._cli.demo.networks import Classes, Digits, Network
from throughtime.diagnosis import Diagnosis

SAMPLES = 128  # test digits of every number that the demo prints
SHOWN_SAMPLES, SHOWN_UNITS = 16, 6  # of plots
JUDGED = "LSTM"
BATCH = 64
EARLY = 5
RECORDS = 40

Batch = tuple[Digits, Classes]


@dataclass(frozen=True)
class Trained:
    """One network after training, with its captures by iteration and its accuracy."""

    name: str
    captures: Mapping[int, xr.DataTree]
    accuracy: float
    diagnoses: Mapping[int, Diagnosis]
    run: xr.DataTree | None

    @property
    def late(self) -> xr.DataTree:
        return self.captures[max(self.captures)]

    def title(self, layer: str, capture: xr.DataTree) -> str:
        iteration = next(step for step, tree in self.captures.items() if tree is capture)
        return f"∂L/∂out · {self.name} · {layer} layer · after {iteration} iterations"


def read_digits() -> tuple[Batch, Batch]:
    """Return training and test digits, (sample, time, 1) between 0 and 1."""
    digits = load_digits()
    x = (digits.data / 16).astype("float32")[..., None]
    x, x_test, y, y_test = train_test_split(x, digits.target, test_size=360, random_state=0)
    return (x, y), (x_test, y_test)


def train(
    build: Callable[[str], Network],
    name: str,
    iterations: int,
    digits: tuple[Batch, Batch],
    progress: Progress,
    path: Path,
) -> Trained:
    """Train, capture the same held-out digits before, early and late; monitor and diagnose one network."""
    network, rng = build(name), np.random.default_rng(0)
    (x, y), test = digits
    judged_on = test[0][:SAMPLES], test[1][:SAMPLES]
    probe, task = tt.Probe(network.model, loss=network.loss), progress.add_task(name, total=iterations)
    is_judged, captures = name == JUDGED, {0: probe(*judged_on)}
    diagnoses = {0: network.diagnose(*judged_on)} if is_judged else {}
    monitor = watching(network, judged_on, path, iterations // RECORDS) if is_judged else None
    with nullcontext() if monitor is None else monitor.watch(network.model):
        for step in range(1, iterations + 1):
            chosen = rng.choice(len(x), BATCH, replace=False)
            network.train(x[chosen], y[chosen])
            if monitor is not None:
                monitor.step()
            if step in (EARLY, iterations):
                captures[step] = probe(*judged_on)
            progress.advance(task)
    if is_judged:
        diagnoses[iterations] = network.diagnose(*judged_on)
    run = None if monitor is None else tt.open_run(path)
    return Trained(name, captures, network.accuracy(*test), diagnoses, run)


def watching(network: Network, batch: Sequence[Any], path: Path, every: int) -> tt.Monitor:
    """Make a monitor that overwrites the run of the last demo."""
    return tt.Monitor(
        path,
        batch=batch,
        every=every,
        quantities="timestep",  # norms of each sample: what intervals are made of
        loss=network.loss,
        mode="overwrite",
        on_alarm=lambda alarm: None,  # printed at the end
    )


def gradients(capture: xr.DataTree) -> xr.DataArray:
    return capture["lower"].to_dataset()["output_gradient"].isel(sample=slice(SHOWN_SAMPLES))
