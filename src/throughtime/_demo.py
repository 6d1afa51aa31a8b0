"""The demo: trains small recurrent networks on handwritten digits and draws what flows through them.

Digits are read pixel by pixel, 64 timesteps of one brightness. Started by `scripts/demo`, or with
`python -m throughtime._demo [FOLDER]`; shows how the public functions are used together.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
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
from rich.table import Column, Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import throughtime as tt
from throughtime.diagnostics import effective_steps, horizon_text, memory_horizon_median, saturation

UNITS = 32
SHOWN_UNITS = 6
SHOWN_SAMPLES = 16
BATCH = 64
EARLY = 5
LATE = {"LSTM": 1000, "GRU": 500, "SimpleRNN": 500, "Bidirectional GRU": 300}
LINES, DOTS, INK = "#0072B2", "#D55E00", "#333333"
NOT_MIRRORED = "Keras hands out both halves in the order of the input, so nothing is mirrored"
DIFFERENCE = "The output's gradient enters the layer; the hidden state's is what its recurrence carries back."

READING = (
    f"Norms are means over {SHOWN_SAMPLES} held-out digits; 'small' is the share of steps below 1% of the "
    "largest. The lower layer's gradient is what the upper layer asks of each step: it shows how far back "
    "the upper layer's recurrence carries the error. The upper layer hands on its last step only, so its "
    "gradient is one vector a digit, with no time in it.",
    "Inside the layer, 'certificate' is the largest error against the framework's own gradients; float32 "
    "allows 1e-05. 'horizon' is the largest lag at which the gradient of the state has 1% of its norm at lag "
    "0, '≥' where the digit ends first; the lower layer receives gradient at every step, so its horizon "
    "tells of both layers. Lags 0 to 'k90' hold 90% of what the steps contribute to the recurrent kernel's "
    "gradient. 'saturated' is the share of gate values in the outer tenths of their range. Horizon and k90 "
    "are medians over the digits; of two directions the forward one stands first.",
    "Look at 2_early_2D.png beside 3_late_2D.png, and at 7_kinds.png.",
    f"5_bidirectional.png: {NOT_MIRRORED}.",
    f"8_through_time.png: {DIFFERENCE}",
)

Batch = tuple[Any, Any]


@dataclass(frozen=True)
class Trained:
    """One network after training: what was captured at which iteration, and how well it reads."""

    name: str
    captures: Mapping[int, xr.DataTree]
    accuracy: float

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
    probe = tt.Probe(model)
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


def draw_image(gradient: xr.DataArray, title: str, **options: Any) -> None:
    """Draw an image a sample, each on a scale of its own: what counts is where in time it is not white."""
    tt.show_features_2D(gradient, norm="auto", show_colorbar=True, show_title=title, **options)


def draw_one_sample(lstm: Trained, folder: Path) -> None:
    early = lstm.captures[EARLY]
    one, title = few_units(early).isel(sample=[0]), f"{lstm.title('lower', early)} · one sample"
    tt.show_features_1D(one, n_rows=2, show_title=title, savepath=folder / "1_one_sample.png")


def draw_batch(lstm: Trained, capture: xr.DataTree, folder: Path, stem: str) -> None:
    """Draw the same batch twice: as lines laid over each other, and as one image a sample."""
    title = f"{lstm.title('lower', capture)} · {SHOWN_SAMPLES} samples"
    tt.show_features_1D(few_units(capture), n_rows=2, show_title=title, savepath=folder / f"{stem}_1D.png")
    draw_image(few_units(capture), title, n_rows=8, savepath=folder / f"{stem}_2D.png")


def draw_many_units(lstm: Trained, folder: Path) -> None:
    one = gradients(lstm.late).isel(sample=[0])
    title = f"{lstm.title('lower', lstm.late)} · all {UNITS} units"
    tt.show_features_1D(one, n_rows=4, show_title=title, savepath=folder / "4_many_units_1D.png")
    draw_image(one, title, savepath=folder / "4_many_units_2D.png")


def draw_bidirectional(both_ways: Trained, folder: Path) -> None:
    four = gradients(both_ways.late).isel(sample=slice(4))
    halves = f"units 0–{UNITS // 2 - 1} read forward, the others backward"
    title = f"{both_ways.title('lower', both_ways.late)}\n{halves}\n{NOT_MIRRORED}"
    path = folder / "5_bidirectional.png"
    draw_image(four, title, n_rows=2, scale_width=1.2, scale_height=1.2, savepath=path)


def draw_last_step(lstm: Trained, folder: Path) -> None:
    title = f"{lstm.title('upper', lstm.late)} · one vector a sample"
    vectors = gradients(lstm.late, "upper")
    tt.show_features_0D(vectors, show_title=title, savepath=folder / "6_last_step_0D.png")


def draw_kinds(kinds: list[Trained], folder: Path) -> None:
    figure = plt.figure(figsize=(14, 6), dpi=100)
    parts: Any = figure.subfigures(1, len(kinds))
    for part, trained in zip(parts, kinds, strict=True):
        title = f"dL/d output · {trained.name}\nlower layer · after {max(trained.captures)} iterations"
        draw_image(gradients(trained.late).isel(sample=[0]), title, figure=part)
    figure.savefig(folder / "7_kinds.png")


def draw_through_time(lstm: Trained, folder: Path) -> None:
    """Draw the gradient that enters the upper layer beside what its recurrence carries back."""
    upper = lstm.late["upper"].to_dataset()
    entering, carried = norm(upper["output_gradient"]), norm(upper["hidden_gradient"])
    last = carried.sizes["time"] - 1
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), sharey=True, layout="constrained", dpi=100)
    right.plot(carried.transpose("time", "sample"), color=LINES, alpha=0.35, linewidth=1)
    right.plot(carried.median("sample"), color=LINES, linewidth=2.5, label="median over samples")
    for ax in (left, right):
        ax.plot([last] * entering.size, entering, "o", color=DOTS, label="output_gradient")
        ax.set(yscale="log", xlim=(-1, last + 1), xlabel="timestep")
        ax.spines[["top", "right"]].set_visible(False)
    note = f"no gradient at steps 0 to {last - 1}:\nthe layer hands on its last step only"
    left.annotate(note, (0.5, 0.5), xycoords="axes fraction", ha="center", va="center", color=INK)
    left.set_title("output_gradient, ∂L/∂output · a dot a sample", fontsize=11)
    left.set_ylabel("norm over units, logarithmic")
    right.set_title("hidden_gradient, dL/dh · a line a sample", fontsize=11)
    right.legend(loc="lower right", frameon=False)
    title = f"LSTM · upper layer · after {max(lstm.captures)} iterations · {SHOWN_SAMPLES} samples"
    figure.suptitle(f"{title}\n{DIFFERENCE}", fontsize=11, color=INK)
    figure.savefig(folder / "8_through_time.png")


def norm(gradient: xr.DataArray) -> xr.DataArray:
    """Norm over units, (sample, [time])."""
    length: xr.DataArray = (gradient**2).sum(str(gradient.dims[-1])) ** 0.5
    return length


def tabulate(
    title: str, columns: Sequence[str], networks: Sequence[Trained], told: Callable[[xr.Dataset], list[str]]
) -> Table:
    """Tell something of each layer of each network, early and late."""
    numbers = [Column(name, justify="right") for name in ("after", *columns)]
    table = Table(
        "network", "layer", *numbers, title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0)
    )
    for trained in networks:
        for layer in ("lower", "upper"):
            for iteration, capture in trained.captures.items():
                table.add_row(trained.name, layer, str(iteration), *told(capture[layer].to_dataset()))
        table.add_section()
    return table


def strengths(layer: xr.Dataset) -> list[str]:
    """Norm at the first, middle and last step, and the share of steps below 1 % of the largest."""
    mean = norm(layer["output_gradient"]).mean("sample")
    if "time" not in mean.dims:
        return ["", "", f"{float(mean):.1e}", ""]
    steps = [f"{float(mean[at]):.1e}" for at in (0, mean.sizes["time"] // 2, -1)]
    return [*steps, f"{float((mean < 0.01 * mean.max()).mean()):.0%}"]


def inside(layer: xr.Dataset) -> list[str]:
    """Certificate, memory horizon, k90 and saturated gates, a number a direction."""
    certificate = f"{float(np.fmax(layer['certificate_weights'], layer['certificate_time']).max()):.0e}"
    try:
        horizon = horizon_text(memory_horizon_median(layer))
        k90 = effective_steps(layer)["k90"].median("sample")
        return [certificate, joined(horizon), joined(k90, ".0f"), saturated(layer)]
    except tt.DiagnosticError:  # the certificate is above the bar: nothing is diagnosed from it
        return [certificate, *["refused"] * 3]


def saturated(layer: xr.Dataset) -> str:
    """Share of values at either end, over all gates and units."""
    if "gate_activation" not in layer:
        return "no gates"
    ends = saturation(layer)
    return joined((ends["left"] + ends["right"]).mean(("gate", "unit")), ".0%")


def joined(values: xr.DataArray, form: str = "") -> str:
    """Write one value, or "forward / backward"."""
    return " / ".join(format(value, form) for value in np.atleast_1d(values))


def draw(networks: Mapping[str, Trained], folder: Path) -> None:
    lstm = networks["LSTM"]
    draw_one_sample(lstm, folder)
    draw_batch(lstm, lstm.captures[EARLY], folder, "2_early")
    draw_batch(lstm, lstm.late, folder, "3_late")
    draw_many_units(lstm, folder)
    draw_bidirectional(networks["Bidirectional GRU"], folder)
    draw_last_step(lstm, folder)
    draw_kinds([networks[kind] for kind in ("LSTM", "GRU", "SimpleRNN")], folder)
    draw_through_time(lstm, folder)
    plt.close("all")


def tell(networks: Sequence[Trained], console: Console) -> None:
    """Print the tables, and how to read them and the pictures."""
    entering = ("first step", "middle", "last", "small")
    measures = ("certificate", "horizon", "k90", "saturated")
    console.print(tabulate("Norm of the output's gradient", entering, networks, strengths))
    console.print(tabulate("Inside the layer", measures, networks, inside))
    accuracies = ", ".join(f"{trained.name} {trained.accuracy:.0%}" for trained in networks)
    for paragraph in (f"Held-out digits read correctly at the end: {accuracies}.", *READING):
        console.print(f"{paragraph}\n", highlight=False)


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
    tell(list(networks.values()), console)
    seconds = time.monotonic() - started
    console.print(f"{len(list(folder.glob('*.png')))} pictures are in {folder}, made in {seconds:.0f} s.")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
