"""`throughtime plot`: which plots a run allows, by its level, and the one that was asked for."""

from pathlib import Path
from types import FunctionType
from typing import Any

import xarray as xr

import throughtime as tt
from throughtime._common.text.tables import Table
from throughtime._errors import did_you_mean
from throughtime._tree import at_place, keeps_norms, place_of, recorded_steps

from .runs import layer_of, quantity_of

LEVELS = {
    "contributions": "summary",
    "evolution": "summary",
    "gradient_flow": "summary",
    "heatmap": "timestep",
    "histogram": "timestep",
    "lag_matrix": "lag_matrix",
    "lag_profile": "summary",
    "lines": "timestep",
    "overview": "summary",
    "training": "summary",
    "weights": "summary",
}


def is_picture(name: str) -> bool:
    return name in tt.plots.__all__ and isinstance(getattr(tt.plots, name), FunctionType)


def plot_names() -> list[str]:
    return [name for name in sorted(tt.plots.__all__) if is_picture(name)]


def table_of_plots(tree: xr.DataTree) -> Table:
    """List the plots, the level that each needs, and whether this run has it."""
    first = next(leaf.path.strip("/") for leaf in tree.leaves)
    rows = []
    for name in plot_names():
        needs = "two runs, with --with" if name == "compare" else f"quantities={LEVELS.get(name, 'full')!r}"
        is_here = name != "compare" and _is_possible(tree, name, first)
        rows.append((name, "any run" if LEVELS.get(name) == "summary" else needs, "yes" if is_here else ""))
    return Table(tuple(rows), ("plot", "needs", "this run"))


def _is_possible(tree: xr.DataTree, name: str, layer: str) -> bool:
    try:
        draw(tree, name, layer=layer)
    except tt.ThroughTimeError:
        return False
    return True


def draw(
    tree: xr.DataTree,
    picture: str,
    *,
    layer: str | None = None,
    step: int | None = None,
    quantity: str | None = None,
    second: Path | None = None,
) -> Any:
    """Draw one plot of a run, if its level keeps the data."""
    if not is_picture(picture):
        hint = did_you_mean(picture, plot_names())
        raise tt.PictureError(f"There is no plot {picture!r}. There are: {', '.join(plot_names())}.{hint}")
    if (picture == "compare") != (second is not None):
        raise tt.PictureError("compare draws two runs, other plots one: plot RUN compare --with RUN2.")
    if picture == "training":
        return tt.plots.training(tree if layer is None else layer_of(tree, layer))
    if picture == "evolution":
        return tt.plots.evolution(layer_of(tree, layer), quantity or "hidden_gradient")
    if picture == "weights" and keeps_norms((run := layer_of(tree, layer)).to_dataset()):
        return tt.plots.weights(run)
    record = at_step(tree, step)
    is_of_model = layer is None and picture in ("gradient_flow", "overview")
    subject: Any = record if is_of_model else layer_of(record, layer)
    sides = [subject] if second is None else [subject, layer_of(at_step(tt.open_run(second), step), layer)]
    sides = sides if quantity is None else [quantity_of(side, quantity) for side in sides]
    plot: Any = getattr(tt.plots, picture)
    return plot(*sides)


def at_step(tree: xr.DataTree, step: int | None) -> xr.DataTree:
    """Read one record, by default the last, with its training step as a coordinate."""
    steps = recorded_steps(tree)
    place = place_of(steps, step)
    record = at_place(tree, place)
    for leaf in record.leaves:
        leaf.dataset = leaf.to_dataset().assign_coords(step=steps[place])
    return record
