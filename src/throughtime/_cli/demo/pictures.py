"""The plots of the demo."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr
from matplotlib import pyplot as plt

import throughtime as tt
from throughtime._cli.demo.networks import UNITS
from throughtime._cli.demo.training import EARLY, SHOWN_SAMPLES, SHOWN_UNITS, Trained, gradients

NOT_MIRRORED = "both halves stand in the order of the input, so nothing is mirrored"


def draw_image(gradient: xr.DataArray, title: str, **options: Any) -> None:
    """Draw an image for each sample, each on a separate scale: the place in time matters."""
    tt.show_features_2D(gradient, norm="auto", show_colorbar=True, show_title=title, **options)


def draw_batch(lstm: Trained, capture: xr.DataTree, path: Path) -> None:
    """Draw an image for each sample."""
    title = f"{lstm.title('lower', capture)} · {SHOWN_SAMPLES} samples"
    draw_image(gradients(capture).isel(output_unit=slice(SHOWN_UNITS)), title, n_rows=8, savepath=path)


def draw_bidirectional(both_ways: Trained, folder: Path) -> None:
    four = gradients(both_ways.late).isel(sample=slice(4))
    halves = f"units 0–{UNITS // 2 - 1} read forward, the others backward"
    title = f"{both_ways.title('lower', both_ways.late)}\n{halves}\n{NOT_MIRRORED}"
    path = folder / "4_bidirectional.png"
    draw_image(four, title, n_rows=2, scale_width=1.2, scale_height=1.2, savepath=path)


def draw_kinds(kinds: list[Trained], folder: Path) -> None:
    figure = plt.figure(figsize=(14, 6), dpi=100)
    parts: Any = figure.subfigures(1, len(kinds))
    for part, trained in zip(parts, kinds, strict=True):
        title = f"∂L/∂out · {trained.name}\nafter {max(trained.captures)} iterations · own colour scale"
        draw_image(gradients(trained.late).isel(sample=[0]), title, figure=part)
    figure.savefig(folder / "3_kinds.png")


def draw(networks: Mapping[str, Trained], folder: Path) -> None:
    lstm = networks["LSTM"]
    draw_batch(lstm, lstm.captures[EARLY], folder / "1_early.png")
    draw_batch(lstm, lstm.late, folder / "2_late.png")
    draw_bidirectional(networks["Bidirectional GRU"], folder)
    draw_kinds([networks[kind] for kind in ("LSTM", "GRU", "SimpleRNN")], folder)
    tt.save(tt.plots.overview(lstm.late), folder / "5_overview.png")
    if lstm.run is not None:  # from the monitor's run: how far the error came back while the network learned
        tt.save(tt.plots.evolution(lstm.run["lower"], "lag_ratio"), folder / "6_evolution.png")
    plt.close("all")
