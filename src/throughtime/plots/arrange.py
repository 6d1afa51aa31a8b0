"""Assigns the dims of an array to the rows, columns, sliders and panels of images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from throughtime._errors import PictureError
from throughtime.plots.data import dim_called, unit_dim

MOST_PANELS = 16


@dataclass(frozen=True)
class Layout:
    """The dims of rows and columns of an image, frames of sliders, images in a panel, and panels."""

    rows: str
    columns: str
    sliders: tuple[str, ...]
    cells: str | None
    panels: tuple[str, ...]


def arranged(values: xr.DataArray, rows: str | None, columns: str, sliders: Sequence[str]) -> Layout:
    """Assign each dim to a place."""
    across = dim_called(values, columns, "columns")
    along = dim_called(values, rows, "rows") if rows else _default_rows(values, across)
    given = [sliders] if isinstance(sliders, str) else list(sliders)
    frames = [dim_called(values, name, "sliders") for name in given]
    if "step" in values.dims and "step" not in (along, across, *frames):
        frames.append("step")
    used = (along, across, *frames)
    if len(set(used)) < len(used):
        raise PictureError(f"An axis can have only one place, got: {', '.join(used)}.")
    left = [str(dim) for dim in values.dims if dim not in used]
    cells = "sample" if values.sizes.get("sample", 1) > 1 and "sample" in left else None
    panels = tuple(dim for dim in left if dim != cells)
    if (number := int(np.prod([values.sizes[dim] for dim in panels], dtype=int))) > MOST_PANELS:
        raise PictureError(
            f"{' × '.join(panels)} make {number} panels, more than {MOST_PANELS}. Choose some with .isel, or "
            f"step through them: sliders={list(panels)}."
        )
    return Layout(along, across, tuple(frames), cells, panels)


def _default_rows(values: xr.DataArray, columns: str) -> str:
    candidates = [unit_dim(values), "sample", *map(str, values.dims)]
    found = next((dim for dim in candidates if dim in values.dims and dim != columns), None)
    if found is None:
        raise PictureError(
            f"The values have one axis, {columns}, and a heatmap needs two. tt.plots.lines draws one."
        )
    return found
