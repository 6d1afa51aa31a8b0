"""`lag_matrix`: the loss of each step against the state at each step before."""

from __future__ import annotations

from typing import Unpack

import numpy as np
import xarray as xr

from throughtime._errors import PictureError
from throughtime._inputs import takes
from throughtime._tree import Layer
from throughtime._tree import layer as one_layer
from throughtime._vocabulary import LAGS
from throughtime.diagnostics.thresholds import REACHES
from throughtime.picture import Axis, Line, Mark, Panel, Picture
from throughtime.picture._drawing.colors import Colors
from throughtime.plots.axes import labels, thinned
from throughtime.plots.colored import colors
from throughtime.plots.curves import whole_image
from throughtime.plots.data import Source, count, last_step, parts, required, subject, symbol_of, title, where
from throughtime.plots.look import Look, checked, finished
from throughtime.plots.profiles import profiles
from throughtime.plots.sentences import sentence

NOTE = (
    "A row is the loss ℓ of one step, a column the state s at one step, hidden and cell together, and the "
    "colour how much the loss depends on the state. White is exactly 0: in a causal layer no loss "
    "depends on later states."
)


@takes(PictureError)
def lag_matrix(captured: Layer, **look: Unpack[Look]) -> Picture:
    """Draw Λ[s, t] = ‖dℓ_s/ds_t‖, the mean over samples, with its zero triangle.

    Parameters
    ----------
    captured : capture with one layer, or a layer, with `lag_matrix`
        See `tt.lag_matrix`.
    **look
        See `tt.plots.Look`: limits, scale, cmap, title, width, height.

    Examples
    --------
    >>> from throughtime import testing
    >>> picture = lag_matrix(testing.lag_matrix_of(0.5, steps=3))
    >>> picture.panels[0].marks[0].values
    array([[1.  , 0.  , 0.  ],
           [0.5 , 1.  , 0.  ],
           [0.25, 0.5 , 1.  ]])
    """
    look = checked(look, without=("share",))
    layer = last_step(one_layer(captured))
    matrix = required(layer, LAGS)
    valid = layer.get("valid")
    shown = matrix if valid is None else matrix.where(valid)
    mean = shown.mean("sample", skipna=True) if "sample" in shown.dims else shown
    source = Source(mean, None, LAGS, f"mean {symbol_of(LAGS)}", where(captured))
    fit = colors(source, mean.values, look)
    counted = None if valid is None else valid.any("sample").values
    panels = tuple(_panel(part, name, fit, counted) for name, part in parts(mean, ["loss_time", "time"]))
    found = [(curve.direction, curve.found(REACHES)) for curve in profiles(layer)]
    detail = count(int(matrix.sizes.get("sample", 1)), "sample")
    rows = f"{matrix.sizes['loss_time']} of {matrix.sizes['time']} loss steps"
    finding = sentence(subject(source.where, "Influence of earlier states"), found)
    picture = Picture(panels, columns=len(panels), note=NOTE, linked="xy")
    return finished(picture, look, (finding, title(source, detail, rows)), (1.6 + 4.6 * len(panels), 5.2))


def _panel(part: xr.DataArray, name: str, fit: Colors, counted: np.ndarray | None) -> Panel:
    values = part.transpose("loss_time", "time").values
    rows, columns = values.shape
    words = labels(part, "loss_time")
    valid = None if counted is None or counted.all() else np.broadcast_to(counted, values.shape)
    marks: list[Mark] = [whole_image(values, fit, valid, rows=np.array(words, dtype=object))]
    whole = rows == columns
    if whole:
        ends = np.array([-0.5, columns - 0.5])
        marks.append(Line(ends, ends, "#555555", 0.7))
    return Panel(
        tuple(marks),
        title=name,
        x=Axis("state at timestep t", (-0.5, columns - 0.5)),
        y=Axis("loss at timestep s", (-0.5, rows - 0.5), thinned(words, 8), reversed=True),
        equal=whole,
    )
