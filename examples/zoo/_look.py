"""Every model of the zoo does this as a script: it captures, prints its findings and saves a plot."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import xarray as xr
from matplotlib import pyplot as plt
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

import throughtime as tt

SHOWN_SAMPLES = 4


def look(build: Callable[[], Any], batch: Callable[[], Any], file: str) -> None:
    """Print a line for each recurrent layer, and save the picture under the file's name, here."""
    keras.utils.set_random_seed(0)
    tree = tt.capture(build(), *batch())
    layers = {node.path: node.to_dataset() for node in tree.leaves}
    console = Console()
    console.print(table(layers))
    name = f"{Path(file).stem}.png"
    draw(layers).savefig(name)
    console.print(f"Saved {name}.")


def gradient(layer: xr.Dataset) -> xr.DataArray:
    """Return the total derivative through time, or the output's where the inside is not known."""
    return layer["hidden_gradient" if "hidden_gradient" in layer else "output_gradient"]


def table(layers: dict[str, xr.Dataset]) -> Table:
    """Tell how large the gradient is at the first and at the last step, and how exact what is inside."""
    shown = Table("layer", "kind", "gradient", "first step", "last step", "certificate", box=SIMPLE)
    for path, layer in layers.items():
        values = gradient(layer)
        norm = (values**2).sum([dim for dim in values.dims if dim not in ("sample", "time")]) ** 0.5
        mean = norm.mean("sample")
        ends = mean[[0, -1]].values if "time" in mean.dims else (np.nan, float(mean))
        shown.add_row(
            path,
            layer.attrs["kind"],
            str(values.attrs["long_name"]),
            *(f"{end:.1e}" for end in ends),
            certificate(layer),
        )
    return shown


def certificate(layer: xr.Dataset) -> str:
    """Tell the largest error of what is inside against the framework's own gradients."""
    errors = [float(layer[name].max()) for name in layer.data_vars if str(name).startswith("certificate")]
    return f"{max(errors):.0e}" if errors else ""


def draw(layers: dict[str, xr.Dataset]) -> Any:
    """Draw the first samples of every layer, one row for each layer."""
    figure = plt.figure(figsize=(12, 3.2 * len(layers)), layout="constrained")
    rows = figure.subfigures(len(layers), 1, squeeze=False)[:, 0]
    for row, layer in zip(rows, layers.values(), strict=True):
        values = gradient(layer).isel(sample=slice(SHOWN_SAMPLES))
        show = tt.show_features_2D if "time" in values.dims else tt.show_features_0D
        show(values, figure=row)
    return figure
