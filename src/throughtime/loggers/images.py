"""Draws the images for loggers: the norm of a layer's gradient against time, as PNG."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import xarray as xr

from throughtime._errors import SchemaError
from throughtime.loggers.keys import group

NAME = "gradient_norm_through_time"


def images(capture: xr.DataTree) -> dict[str, bytes]:
    """Draw each layer and direction that has a gradient over time."""
    # Drawing libraries are imported here because most loggers read no image.
    plots: Any = import_module("throughtime.plots")
    drawn: Any = import_module("throughtime.render.matplotlib")
    theme: Any = import_module("throughtime._drawing.theme").Theme()
    found = {}
    for leaf in capture.leaves:
        for direction, part in _ways(leaf.to_dataset()):
            place = group(leaf.path, direction)
            words = f"norm of the gradient · {place.partition('/')[2]}"
            try:
                picture = plots.gradient_flow(part, title=words, width=7.0, height=3.6)
            except SchemaError:
                continue
            found[f"{place}/{NAME}"] = drawn.encoded(picture, theme, "png")
    return found


def _ways(leaf: xr.Dataset) -> Iterator[tuple[str, xr.Dataset]]:
    """Yield each direction, kept as a dim so that the plot names it."""
    if "direction" not in leaf.dims:
        yield "", leaf
        return
    for place, name in enumerate(leaf["direction"].values):
        yield str(name), leaf.isel(direction=[place])
