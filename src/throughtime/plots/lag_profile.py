"""`lag_profile`: the gradient k steps back relative to lag 0, with its uncertainty over samples."""

from __future__ import annotations

from typing import Unpack

import numpy as np

from throughtime._errors import PictureError
from throughtime._inputs import takes
from throughtime._inputs.rules import number
from throughtime._tree import Layer
from throughtime.diagnostics.checks import certified
from throughtime.diagnostics.thresholds import REACHES
from throughtime.picture import Axis, Line, Mark, Panel, Picture
from throughtime.picture._drawing.scale import Scale
from throughtime.picture._drawing.theme import DISTINCT
from throughtime.plots.data import count, dotted, few_of, located, subject, where
from throughtime.plots.look import Look, checked, in_columns
from throughtime.plots.profiles import LagCurve, curve_marks, fitted, levels, profiles
from throughtime.plots.recorded import sampled
from throughtime.plots.sentences import sentence

MOST_CURVES = 100
NOTE = (
    "R(k) is the gradient of the state k steps before the loss, divided by its value at lag 0. Grey: a line "
    "for each sample. Below the threshold, the median has lost 99 % of its size."
)


@takes(PictureError, threshold=number(0, 1, inside=True))
def lag_profile(captured: Layer, *, threshold: float = REACHES, **look: Unpack[Look]) -> Picture:
    """Draw R(k), the gradient k steps back as a fraction of lag 0, with the interval of its median.

    If error enters the layer at several steps, the curve is that of the last one alone, as in `diagnose`;
    the subtitle then contains this.

    Parameters
    ----------
    captured : capture or run with one layer, or a layer
        With `hidden_gradient` (an LSTM: `cell_gradient` too) or `lag_matrix`. A run that keeps a summary has
        the median only.
    threshold : float in (0, 1)
        Drawn as a line, as is 2⁻²⁴, below which a float32 sum does not change.
    **look
        See `tt.plots.Look`: limits, title, width, height.

    Raises
    ------
    SchemaError, DiagnosticError
        As `tt.diagnostics.lag_profile`.

    Examples
    --------
    >>> from throughtime import testing
    >>> picture = lag_profile(testing.decaying([0.5, 0.6, 0.7]))
    >>> median = next(mark for mark in picture.panels[0].of(Line) if mark.label.startswith("median"))
    >>> dict(median.details)["R"][:3]
    array([1.  , 0.6 , 0.36])
    """
    look = checked(look, without=("share", "scale", "cmap"))
    layer = sampled(certified(captured))
    curves = profiles(layer)
    drawn = [curve.middle if curve.each is None else curve.each for curve in curves]
    scale = fitted(drawn, threshold, look.get("limits"))
    panels = tuple(_panel(curve, scale, threshold) for curve in curves)
    found = [(curve.direction, curve.found(threshold)) for curve in curves]
    counted = [curve.samples for curve in curves if curve.samples is not None]
    noun = (
        "lag profile R(k)",
        located(captured, layer),
        few_of(max(counted), layer) if counted else "median over samples",
        "error of the last step alone" if any(curve.basis == "last" for curve in curves) else "",
    )
    titles = sentence(subject(where(captured)), found), dotted(*noun)
    return in_columns(Picture(panels, note=NOTE, linked="xy"), look, titles, 4.2)


def _panel(curve: LagCurve, scale: Scale, threshold: float) -> Panel:
    marks: list[Mark] = [*_samples(curve, scale)]
    of = "over samples" if curve.samples is None else f"of {count(curve.samples, 'sample')}"
    marks += curve_marks(curve, scale, DISTINCT[0], f"median {of}", "95 % interval of the median")
    ends = np.array([0.0, max(1.0, curve.lags[-1])])
    marks += levels(ends, scale, threshold)
    return Panel(
        tuple(marks),
        title=curve.direction,
        x=Axis("lag: valid steps before the last one", (-0.5, ends[1] + 0.5)),
        y=Axis(scale.label("R(k)"), (-0.03, 1.05), scale.ticks()),
        grid=True,
    )


def _samples(curve: LagCurve, scale: Scale) -> list[Line]:
    """One line through all samples, with gaps between them."""
    if curve.each is None or len(curve.each) < 2:
        return []
    values = curve.each[:MOST_CURVES]
    gap = np.full((len(values), 1), np.nan)
    x = np.concatenate([np.broadcast_to(curve.lags, values.shape), gap], axis=1).ravel()
    y = np.concatenate([scale.curve(values), gap], axis=1).ravel()
    return [Line(x, y, "#9a9a9a", 0.6, 0.6)]
