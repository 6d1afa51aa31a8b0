"""The tables of the demo, and texts on how to read them and the plots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Column, Table

import throughtime as tt
from throughtime._demo.networks import HALF
from throughtime._demo.pictures import NOT_MIRRORED
from throughtime._demo.training import SHOWN_SAMPLES, Trained, norm
from throughtime.diagnosis import TrainingDiagnosis
from throughtime.diagnosis.brief import facts, headline
from throughtime.diagnostics import effective_steps, horizon_text, memory_horizon_median, saturation

READING = (
    f"Norms are means over {SHOWN_SAMPLES} held-out digits; 'small' is the share of steps below 1% of the "
    "largest. The lower layer's gradient is what the upper layer asks of each step: it shows how far back "
    "the upper layer's recurrence carries the error. Of the upper layer the head reads the last step only, "
    "so its gradient is one vector a digit; in PyTorch it is 0 at all other steps.",
    "Inside the layer, 'certificate' is the largest error against the framework's own gradients; float32 "
    "allows 1e-05. 'horizon' is the largest lag at which the gradient of the state has 1% of its norm at lag "
    "0, '≥' where the digit ends first; the lower layer receives gradient at every step, so its horizon "
    "shows both layers. Lags 0 to 'k90' hold 90% of what the steps contribute to the recurrent kernel's "
    "gradient. 'saturated' is the share of gate values in the outer tenths of their range. Horizon and k90 "
    "are medians over the digits; of two directions the forward one stands first.",
)
FILES = {
    "report.html": "the LSTM's report: verdict, what to do, how training got there, layer by layer",
    "demo_run.zarr": "its run: throughtime watch, info, diagnose or plot reads it",
    "2_early_2D.png, 3_late_2D.png": "gradient by timestep, before and after",
    "7_kinds.png": "LSTM, GRU and SimpleRNN on one digit",
    "5_bidirectional.png": NOT_MIRRORED,
    "8_through_time.png": "output gradient beside hidden gradient",
    "9_evolution.png": "a row a recorded step: grey where no error arrived",
}


def tabulate(
    title: str,
    columns: Sequence[str],
    networks: Sequence[Trained],
    measure: Callable[[xr.Dataset], list[str]],
) -> Table:
    """Tabulate a measure of each layer of each network, early and late."""
    numbers = [Column(name, justify="right") for name in ("after", *columns)]
    table = Table(
        "network", "layer", *numbers, title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0)
    )
    for trained in networks:
        for layer in ("lower", "upper"):
            for iteration, capture in trained.captures.items():
                table.add_row(trained.name, layer, str(iteration), *measure(capture[layer].to_dataset()))
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


def brief(networks: Sequence[Trained], folder: Path, console: Console) -> None:
    """Print the verdicts before and after, one table of all networks, and the contents of the folder."""
    for trained in networks:
        for iteration, found in trained.diagnoses.items():
            when = f"after {iteration} iterations" if iteration else "before training"
            numbers = ", ".join(f"{fact.name.lower()} {fact.value}" for fact in facts(found))
            console.print(f"{trained.name} {when}: [bold]{headline(found)}[/bold]", soft_wrap=True)
            console.print(f"  {numbers}", highlight=False)
    table = Table("network", "digits read", "horizon at first", "at the end", box=None, padding=(0, 2, 0, 0))
    for trained in networks:
        first, *_, last = trained.captures.values()
        ends = [inside(capture["upper"].to_dataset())[1] for capture in (first, last)]
        table.add_row(trained.name, f"{trained.accuracy:.0%}", *ends)
    console.print()
    console.print(table)
    console.print("Horizon: steps back at which 1% of the upper layer's gradient still arrives.\n")
    console.print(f"In {folder}:", highlight=False)
    for name, words in FILES.items():
        console.print(f"  {name:<31}{words}", highlight=False, soft_wrap=True)


def print_all(networks: Sequence[Trained], console: Console) -> None:
    """Print all tables, how to read them, and the verdicts in full."""
    entering = ("first step", "middle", "last", "small")
    measures = ("certificate", "horizon", "k90", "saturated")
    console.print(tabulate("Norm of the output's gradient", entering, networks, strengths))
    console.print(tabulate("Inside the layer", measures, networks, inside))
    accuracies = ", ".join(f"{trained.name} {trained.accuracy:.0%}" for trained in networks)
    for paragraph in (f"Held-out digits read correctly at the end: {accuracies}.", *READING):
        console.print(f"{paragraph}\n", highlight=False)
    for trained in networks:
        for iteration, found in trained.diagnoses.items():
            when = f"after {iteration} iterations" if iteration else "before training"
            console.rule(f"The verdict on the {trained.name}, {when}, at lag {HALF}", align="left")
            console.print(found)
            console.print()
        if trained.run is not None:
            console.rule(f"The {trained.name} over training, at lag {HALF}", align="left")
            found = tt.diagnose(trained.run, dependency_length=HALF)
            console.print(found.history if isinstance(found, TrainingDiagnosis) else found)
            console.print()
