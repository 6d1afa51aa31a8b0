"""The demo's tables, and words on how to read them and the pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Column, Table

import throughtime as tt
from throughtime._demo.networks import HALF
from throughtime._demo.pictures import DIFFERENCE, NOT_MIRRORED
from throughtime._demo.training import SHOWN_SAMPLES, Trained, norm
from throughtime.diagnosis import TrainingDiagnosis
from throughtime.diagnostics import effective_steps, horizon_text, memory_horizon_median, saturation

READING = (
    f"Norms are means over {SHOWN_SAMPLES} held-out digits; 'small' is the share of steps below 1% of the "
    "largest. The lower layer's gradient is what the upper layer asks of each step: it shows how far back "
    "the upper layer's recurrence carries the error. Of the upper layer the head reads the last step only, "
    "so its gradient is one vector a digit; in PyTorch it is 0 at all other steps.",
    "Inside the layer, 'certificate' is the largest error against the framework's own gradients; float32 "
    "allows 1e-05. 'horizon' is the largest lag at which the gradient of the state has 1% of its norm at lag "
    "0, '≥' where the digit ends first; the lower layer receives gradient at every step, so its horizon "
    "tells of both layers. Lags 0 to 'k90' hold 90% of what the steps contribute to the recurrent kernel's "
    "gradient. 'saturated' is the share of gate values in the outer tenths of their range. Horizon and k90 "
    "are medians over the digits; of two directions the forward one stands first.",
    "Look at 2_early_2D.png beside 3_late_2D.png, and at 7_kinds.png.",
    f"5_bidirectional.png: {NOT_MIRRORED}.",
    f"8_through_time.png: {DIFFERENCE}",
    "9_evolution.png: a row a recorded training step. Where it is grey, no error arrived then.",
)


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


def tell(networks: Sequence[Trained], console: Console) -> None:
    """Print the tables, and how to read them and the pictures."""
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
