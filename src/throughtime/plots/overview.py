"""`overview`: one figure of a whole model: reach, teaching and gates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Unpack

import numpy as np
import xarray as xr

from throughtime._errors import PictureError, SchemaError
from throughtime._inputs import takes
from throughtime._tree import has_state_gradients
from throughtime.diagnostics import saturation
from throughtime.diagnostics.checks import certified
from throughtime.diagnostics.lags import by_lag, runs_backward, steps_of_last_episode
from throughtime.diagnostics.statistics import quantiles
from throughtime.diagnostics.thresholds import REACHES
from throughtime.picture import Axis, Line, Mark, Panel, Picture, Rectangles
from throughtime.picture._drawing.palettes import hues
from throughtime.picture._drawing.scale import Array
from throughtime.picture._drawing.theme import DISTINCT
from throughtime.plots.data import count, dotted, last_step, layers, located, parts
from throughtime.plots.look import Look, checked, finished
from throughtime.plots.profiles import LagCurve, legend, profiles, reach_panel, shortened
from throughtime.plots.recorded import is_summary, sampled
from throughtime.plots.sentences import sentence

MOST_NAMED = 2
MOST_BARS = 16
NOTE = (
    "Reach: the gradient k steps back, divided by that at lag 0. Teaching: the share of the recurrent "
    "weights' gradient that comes from the last k steps. Gates: the share of values at the ends of their "
    "range; an open forget gate is how memory works. Lines are medians over samples."
)
Named = list[tuple[str, xr.Dataset]]


@takes(PictureError)
def overview(captured: xr.DataTree | xr.Dataset, **look: Unpack[Look]) -> Picture:
    """Draw reach, teaching and gates of all recurrent layers in one figure.

    Parameters
    ----------
    captured : capture or run, or a layer of one
        For a run, the last recorded step is drawn, without the panels that its level does not allow.
    **look
        See `tt.plots.Look`: title, width, height.

    Raises
    ------
    SchemaError
        No layer has gradients of its states.
    DiagnosticError
        The certificate of a layer is above its bar.

    Examples
    --------
    >>> from throughtime import testing
    >>> overview(testing.decaying([0.5, 0.5, 0.6])).title
    'Gradient of rnn falls below 1 % after 6 steps'
    """
    look = checked(look, without=("limits", "share", "scale", "cmap"))
    every = [(path, certified(last_step(leaf).load())) for path, leaf in layers(captured)]
    found = [(path, sampled(leaf)) for path, leaf in every]
    curves = [
        (dotted(path, curve.direction), curve)
        for path, leaf in found
        if _is_measured(leaf)
        for curve in profiles(leaf)
    ]
    if not curves:
        raise SchemaError(
            "No layer here has the gradient of its states: tt.capture(model, x, y) with labels captures it."
        )
    panels = [reach_panel(dict(curves), "reach"), *_teaching(found), *_gates(every)]
    noun = (
        f"overview · {count(len({path for path, leaf in found if _is_measured(leaf)}), 'recurrent layer')}",
        located("", every[0][1]),
        "error of the last step alone" if any(curve.basis == "last" for _, curve in curves) else "",
    )
    picture = Picture(tuple(panels), columns=len(panels), note=NOTE)
    return finished(picture, look, (_weakest(curves), dotted(*noun)), (1.0 + 4.4 * len(panels), 4.4))


def _is_measured(leaf: xr.Dataset) -> bool:
    has_states = has_state_gradients(leaf)
    return is_summary(leaf) or "lag_matrix" in leaf or has_states


def _weakest(curves: list[tuple[str, LagCurve]]) -> str:
    """Describe how far the gradient reaches in the layers where it reaches least."""
    detail = [(name, curve.found(REACHES), curve) for name, curve in curves]
    known = sorted((each for each in detail if each[1]), key=lambda each: _last(each[2]))
    if len(curves) == 1:
        return sentence(f"Gradient of {curves[0][0]}" if curves[0][0] else "Gradient", [("", detail[0][1])])
    if len({words for _, words, _ in detail}) == 1:
        return sentence("Gradient of every layer", [("", detail[0][1])])
    more = len(known) - MOST_NAMED
    words = sentence("Gradient", [(name, found) for name, found, _ in known[:MOST_NAMED]])
    return f"{words}; {count(more, 'other')} further back" if more > 0 and words else words


def _last(curve: LagCurve) -> int:
    reached = np.flatnonzero(np.nan_to_num(curve.middle) >= REACHES)
    return int(reached[-1]) if reached.size else 0


def _teaching(found: Named) -> Iterator[Panel]:
    """Accumulate the step contributions from the last step back."""
    marks: list[Mark] = []
    shares = [(name, share) for path, leaf in found for name, share in _shares(path, leaf)]
    labels = legend([name for name, _ in shares])
    for color, label, (_, share) in zip(hues(len(shares)), labels, shares, strict=True):
        lags = np.arange(float(len(share)))
        marks.append(Line(lags, share, color, 1.8, label=label, details=(("share", share),)))
    if marks:
        longest = max(1.0, *(len(share) - 1.0 for _, share in shares))
        ends, level = np.array([0.0, longest]), np.full(2, 0.9)
        marks.append(Line(ends, level, "#c0447a", 1.0, dashed=True, label="90 %"))
        x, y = (
            Axis("lag k, steps back", (-0.5, longest + 0.5)),
            Axis("share from the last k steps", (0.0, 1.03)),
        )
        yield Panel(tuple(marks), "teaching", x, y, grid=True)


def _shares(path: str, leaf: xr.Dataset) -> Iterator[tuple[str, Array]]:
    if "step_contribution" not in leaf or is_summary(leaf):
        return
    sizes = by_lag(leaf["step_contribution"], steps_of_last_episode(leaf), runs_backward(leaf))
    for direction, part in parts(sizes, ["sample", "lag"]):
        values = np.nan_to_num(part.transpose("sample", "lag").values, nan=0.0, posinf=0.0)
        totals = values.sum(axis=1, keepdims=True)
        if (totals > 0).any():
            summed = np.cumsum(values / np.where(totals > 0, totals, np.nan), axis=1)
            yield dotted(path, direction), quantiles(summed, (0.5,))[0]


def _gates(every: Named) -> Iterator[Panel]:
    """Draw how often each gate is at either end of its range; of many gates only some."""
    bars = [bar for path, leaf in every for bar in _ends(shortened(path) if len(every) > 1 else "", leaf)]
    if not bars:
        return
    most = sorted(range(len(bars)), key=lambda place: -sum(bars[place][1:]))[:MOST_BARS]
    bars = [bars[place] for place in sorted(most)]
    top = np.arange(len(bars)) - 0.35
    shut, opened = (np.array([bar[which] for bar in bars]) for which in (1, 2))
    low = np.stack([np.zeros_like(shut), top, shut, top + 0.7], axis=1)
    high = np.stack([shut, top, shut + opened, top + 0.7], axis=1)
    marks = (
        Rectangles(low, fill=DISTINCT[0], alpha=0.8, label="below 10 % of the range"),
        Rectangles(high, fill=DISTINCT[1], alpha=0.8, label="above 90 %"),
    )
    ticks = tuple((float(place), bar[0]) for place, bar in enumerate(bars))
    # Room for the legend below the last bar.
    down = Axis("", (-0.6, len(bars) - 0.4 + 0.25 * len(bars)), ticks, reversed=True)
    yield Panel(marks, "gates", Axis("share of values", (0.0, 1.0)), down)


def _ends(path: str, leaf: xr.Dataset) -> Iterator[tuple[str, float, float]]:
    if "gate_activation" in leaf:
        dims = [dim for dim in ("unit", "cell_unit") if dim in leaf["gate_activation"].dims]
        found = saturation(leaf).mean(dims, skipna=True)
        sides = found["left"], found["right"]
    elif {"saturation_left", "saturation_right"} <= set(leaf.data_vars):
        sides = leaf["saturation_left"], leaf["saturation_right"]
    else:
        return
    for (name, low), (_, high) in zip(*(parts(side, []) for side in sides), strict=True):
        if np.isfinite([float(low), float(high)]).all():
            yield " ".join(filter(None, (path, name))), float(low), float(high)
