"""The demo: trains small recurrent networks on handwritten digits and draws what flows through them.

Digits are read pixel by pixel, 64 timesteps of one brightness. Started by `scripts/demo`, or with
`python -m throughtime._demo [FOLDER]`; shows how the public functions are used together.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib import pyplot as plt
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import throughtime as tt

UNITS = 32
SHOWN_UNITS = 6
SHOWN_SAMPLES = 16
BATCH = 64
EARLY = 5
LATE = {"LSTM": 1000, "GRU": 500, "SimpleRNN": 500, "Bidirectional GRU": 300}
NOT_MIRRORED = "Keras hands out both halves in the order of the input, so nothing is mirrored"

READING = f"""
Norms are means over {SHOWN_SAMPLES} held-out digits; "small" is the share of steps below 1 % of the largest.
The lower layer's gradient is what the upper layer asks of each step: it shows how far back the upper layer's
recurrence carries the error, before and after training. The upper layer hands on its last step only, so its
gradient is one vector a sample, with no time in it.
Both directions: {NOT_MIRRORED}.
Look at 2_early_2D.png beside 3_late_2D.png, then at 5_bidirectional.png and 7_kinds.png.
"""

Batch = tuple[Any, Any]


@dataclass(frozen=True)
class Trained:
    """One network after training: what was captured at which iteration, and how well it reads."""

    name: str
    captures: Mapping[int, xr.DataTree]
    accuracy: float

    @property
    def early(self) -> xr.DataTree:
        return self.captures[EARLY]

    @property
    def late(self) -> xr.DataTree:
        return self.captures[max(self.captures)]

    def title(self, layer: str, capture: xr.DataTree) -> str:
        iteration = next(step for step, tree in self.captures.items() if tree is capture)
        return f"dL/d output · {self.name} · {layer} layer · after {iteration} iterations"


def read_digits() -> tuple[Batch, Batch]:
    """Return training and test digits, (sample, time, 1) between 0 and 1."""
    digits = load_digits()
    x = (digits.data / 16).astype("float32")[..., None]
    x, x_test, y, y_test = train_test_split(x, digits.target, test_size=360, random_state=0)
    return (x, y), (x_test, y_test)


def build(name: str) -> Any:
    """Two layers of one kind, the lower one giving every step to the upper one, then ten classes."""
    keras.utils.set_random_seed(0)
    layers = [keras.Input((64, 1)), *recurrent_layers(name), keras.layers.Dense(10, name="digit")]
    model = keras.Sequential(layers)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(5e-3, clipnorm=1.0), loss, metrics=["accuracy"])
    return model


def recurrent_layers(name: str) -> list[Any]:
    kind = getattr(keras.layers, name.removeprefix("Bidirectional "))
    if not name.startswith("Bidirectional"):
        return [kind(UNITS, return_sequences=True, name="lower"), kind(UNITS, name="upper")]
    return [
        keras.layers.Bidirectional(kind(UNITS // 2, return_sequences=True), name="lower"),
        keras.layers.Bidirectional(kind(UNITS // 2), name="upper"),
    ]


def train(name: str, iterations: int, training: Batch, test: Batch, progress: Progress) -> Trained:
    """Train, and capture the same held-out digits early and late."""
    model, rng = build(name), np.random.default_rng(0)
    x, y = training
    probe = tt.Probe(model, quantities=["output", "output_gradient"])
    looked_at = [part[:SHOWN_SAMPLES] for part in test]
    captures = {}
    task = progress.add_task(name, total=iterations)
    for step in range(1, iterations + 1):
        chosen = rng.choice(len(x), BATCH, replace=False)
        model.train_on_batch(x[chosen], y[chosen])
        if step in (EARLY, iterations):
            captures[step] = probe(*looked_at)
        progress.advance(task)
    accuracy = model.evaluate(*test, batch_size=len(test[1]), verbose=0, return_dict=True)["accuracy"]
    return Trained(name, captures, float(accuracy))


def gradients(capture: xr.DataTree, layer: str = "lower") -> xr.DataArray:
    return capture[layer].to_dataset()["output_gradient"]


def few_units(capture: xr.DataTree) -> xr.DataArray:
    return gradients(capture).isel(output_unit=slice(SHOWN_UNITS))


def draw_one_sample(lstm: Trained, folder: Path) -> None:
    tt.show_features_1D(
        few_units(lstm.early).isel(sample=[0]),
        n_rows=2,
        show_title=f"{lstm.title('lower', lstm.early)} · one sample",
        savepath=folder / "1_one_sample.png",
    )


def draw_batch(lstm: Trained, capture: xr.DataTree, folder: Path, stem: str) -> None:
    """Draw the same batch twice: as lines laid over each other, and as one image a sample."""
    title = f"{lstm.title('lower', capture)} · {SHOWN_SAMPLES} samples"
    tt.show_features_1D(few_units(capture), n_rows=2, show_title=title, savepath=folder / f"{stem}_1D.png")
    tt.show_features_2D(
        few_units(capture),
        n_rows=8,
        norm="auto",
        show_title=title,
        show_colorbar=True,
        savepath=folder / f"{stem}_2D.png",
    )


def draw_many_units(lstm: Trained, folder: Path) -> None:
    one = gradients(lstm.late).isel(sample=[0])
    title = f"{lstm.title('lower', lstm.late)} · all {UNITS} units"
    tt.show_features_1D(one, n_rows=4, show_title=title, savepath=folder / "4_many_units_1D.png")
    tt.show_features_2D(
        one,
        norm="auto",
        show_title=title,
        show_colorbar=True,
        savepath=folder / "4_many_units_2D.png",
    )


def draw_bidirectional(both_ways: Trained, folder: Path) -> None:
    halves = f"units 0–{UNITS // 2 - 1} read forward, the others backward"
    title = f"{both_ways.title('lower', both_ways.late)}\n{halves}\n{NOT_MIRRORED}"
    tt.show_features_2D(
        gradients(both_ways.late).isel(sample=slice(4)),
        n_rows=2,
        norm="auto",
        show_title=title,
        show_colorbar=True,
        scale_width=1.2,
        scale_height=1.2,
        savepath=folder / "5_bidirectional.png",
    )


def draw_last_step(lstm: Trained, folder: Path) -> None:
    tt.show_features_0D(
        gradients(lstm.late, "upper"),
        show_title=f"{lstm.title('upper', lstm.late)} · one vector a sample",
        savepath=folder / "6_last_step_0D.png",
    )


def draw_kinds(kinds: list[Trained], folder: Path) -> None:
    """Side by side with a scale of their own each: what counts is where in time they are not white."""
    figure = plt.figure(figsize=(14, 6), dpi=100)
    parts: Any = figure.subfigures(1, len(kinds))
    for part, trained in zip(parts, kinds, strict=True):
        iteration = max(trained.captures)
        tt.show_features_2D(
            gradients(trained.late).isel(sample=[0]),
            norm="auto",
            show_title=f"dL/d output · {trained.name}\nlower layer · after {iteration} iterations",
            show_colorbar=True,
            figure=part,
        )
    figure.savefig(folder / "7_kinds.png")


def norms(capture: xr.DataTree, layer: str) -> xr.DataArray:
    """Mean over samples of the gradient's norm, (time) or a scalar."""
    squares: xr.DataArray = (gradients(capture, layer) ** 2).sum("output_unit")
    return (squares**0.5).mean("sample")


def summary(networks: list[Trained]) -> Table:
    """Tabulate how much gradient arrives where."""
    columns = ("network", "layer", "after", "first step", "middle", "last", "small", "accuracy")
    table = Table(*columns, box=SIMPLE, padding=(0, 1, 0, 0))
    for trained in networks:
        last = max(trained.captures)
        for iteration, capture in trained.captures.items():
            accuracy = f"{trained.accuracy:.0%}" if iteration == last else ""
            for layer in ("lower", "upper"):
                cells = strengths(norms(capture, layer))
                table.add_row(
                    trained.name, layer, str(iteration), *cells, accuracy if layer == "lower" else ""
                )
        table.add_section()
    return table


def strengths(norm: xr.DataArray) -> list[str]:
    """Norm at the first, middle and last step, and the share of steps below 1 % of the largest."""
    if "time" not in norm.dims:
        return ["", "", f"{float(norm):.1e}", ""]
    steps = [f"{float(norm[at]):.1e}" for at in (0, norm.sizes["time"] // 2, -1)]
    return [*steps, f"{float((norm < 0.01 * norm.max()).mean()):.0%}"]


def draw(networks: Mapping[str, Trained], folder: Path) -> None:
    lstm = networks["LSTM"]
    draw_one_sample(lstm, folder)
    draw_batch(lstm, lstm.early, folder, "2_early")
    draw_batch(lstm, lstm.late, folder, "3_late")
    draw_many_units(lstm, folder)
    draw_bidirectional(networks["Bidirectional GRU"], folder)
    draw_last_step(lstm, folder)
    draw_kinds([networks[kind] for kind in ("LSTM", "GRU", "SimpleRNN")], folder)
    plt.close("all")


def main(folder: Path) -> None:
    """Train, draw and tell."""
    started = time.monotonic()
    mpl.use("agg")
    console = Console()
    folder.mkdir(parents=True, exist_ok=True)
    console.print(f"Training on Keras {keras.__version__}, {keras.backend.backend()} backend.")
    training, test = read_digits()
    columns = (TextColumn("{task.description:>18}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        networks = {name: train(name, count, training, test, progress) for name, count in LATE.items()}
    console.print("Drawing …")
    draw(networks, folder)
    console.print(summary(list(networks.values())))
    console.print(READING, soft_wrap=True)
    seconds = time.monotonic() - started
    console.print(f"{len(list(folder.glob('*.png')))} pictures are in {folder}, made in {seconds:.0f} s.")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
