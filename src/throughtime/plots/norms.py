"""Norms of weights by training step, which `weights` draws if a run does not keep the weights."""

from __future__ import annotations

import numpy as np
import xarray as xr

from throughtime._drawing.scale import Scale
from throughtime._drawing.theme import hue
from throughtime._vocabulary import WEIGHTS
from throughtime.picture import Axis, Line, Panel, Picture
from throughtime.plots.data import count, dotted, located, parts, subject
from throughtime.plots.findings import change
from throughtime.plots.look import Look, in_columns, titled

NOTE = (
    "Frobenius norms at each recorded training step, a line for each gate, on one scale. A jump shows where "
    "training was disturbed; a constant norm shows what does not learn."
)


def weight_norms(dataset: xr.Dataset, where: str, look: Look, *, gradient: bool) -> Picture | None:
    """Draw a panel for each weight and direction; return None if the run keeps no norms."""
    ending = "_gradient_norm" if gradient else "_norm"
    norms = {name: dataset[f"{name}{ending}"] for name in WEIGHTS if f"{name}{ending}" in dataset}
    if not norms or "step" not in dataset.dims:
        return None
    norms = {name: values.astype(np.float64).load() for name, values in norms.items()}
    everything = np.concatenate([values.values.ravel() for values in norms.values()])
    known = everything[np.isfinite(everything) & (everything > 0)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.1, 1.0)
    scale = Scale("log10", *map(float, look.get("limits") or (low / 1.2, high * 1.2)))
    panels = tuple(_panels(norms, dataset["step"].values.astype(float), scale))
    what = "norms of the weights' gradients" if gradient else "norms of the weights"
    steps = count(int(dataset.sizes["step"]), "training step")
    return Picture(
        panels,
        **titled(look, _changed(norms, where, what), dotted(what, located(where, dataset), steps)),
        note=NOTE,
        linked="xy",
        **in_columns(look, panels, 3.2, more=1.0),
    )


def _changed(norms: dict[str, xr.DataArray], where: str, what: str) -> str:
    """Name the norm that has changed most since the first record."""
    ends = {
        dotted(name.replace("_", " "), words): (float(row[0]), float(row[-1]))
        for name, values in norms.items()
        for words, row in parts(values, ["step"])
    }
    ratios = {name: abs(np.log(last / first)) for name, (first, last) in ends.items() if change(first, last)}
    if not ratios:
        return ""
    most = max(ratios, key=lambda name: ratios[name])
    return f"{subject(where, what.capitalize())}: {most} {change(*ends[most])}"


def _panels(norms: dict[str, xr.DataArray], steps: np.ndarray, scale: Scale) -> list[Panel]:
    ends = (steps[0] - 0.5, max(steps[-1], steps[0] + 1) + 0.5)
    found = []
    for name, values in norms.items():
        for direction, part in parts(values, ["step", "gate"] if "gate" in values.dims else ["step"]):
            lines = [
                Line(steps, scale.clipped(row.values), hue(place), 1.5, label=gate, details=details)
                for place, (gate, row) in enumerate(parts(part, ["step"]))
                for details in [(("training step", steps), ("norm", row.values))]
            ]
            title = dotted(name.replace("_", " "), direction)
            y = Axis(scale.label("norm"), (-0.04, 1.06), scale.ticks())
            found.append(Panel(tuple(lines), title=title, x=Axis("training step", ends), y=y, grid=True))
    return found
