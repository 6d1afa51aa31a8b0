"""`training`: loss and measures of a model against its recorded training steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Unpack

import numpy as np
import xarray as xr

from throughtime._errors import PictureError
from throughtime._inputs import takes
from throughtime._inputs.rules import optional, whole
from throughtime._tree import evenly, has_state_gradients
from throughtime.diagnostics.alarm import Alarm, alarms_of_run
from throughtime.diagnostics.checks import why_refused
from throughtime.diagnostics.thresholds import REACHES, ROUNDING
from throughtime.picture import Axis, Dots, Line, Mark, Panel, Picture
from throughtime.picture._drawing.scale import Array, Scale
from throughtime.picture._drawing.theme import hue
from throughtime.plots.data import count, dotted, layers, parts, subject
from throughtime.plots.look import Look, checked, in_columns
from throughtime.plots.profiles import profiles
from throughtime.plots.recorded import sampled
from throughtime.plots.sentences import sentence

ALARM = "#C0143C"
DEEPEST = 1e-30  # of the largest
MOST_RECORDS = 24  # of a run that keeps vectors, whose ratios are measured here
NOTE = (
    "The horizon is the last lag at which the gradient has 1 % of its size at lag 0; R(k) is its size at "
    "lag k. A gap marks a record without a valid certificate. A gate is saturated near either end of its "
    "range. Triangles mark alarms."
)
_PANELS = {  # quantity -> label of its axis, whether it spans decades, the alarms that belong to it
    "loss": ("loss", True, ("nonfinite",)),
    "horizon": ("memory horizon, steps", False, ()),
    "ratio": ("R({lag})", True, ("vanishing", "explosion", "dead_gradient")),
    "saturation": ("saturation, largest gate", False, ("saturation",)),
    "gradient_norm": ("gradient norm", True, ()),
    "clip_ratio": ("share left after clipping", False, ()),
}


@dataclass(frozen=True)
class Trace:
    """One quantity of a layer, or of the model, at training steps."""

    quantity: str
    name: str
    steps: Array
    values: Array


@takes(PictureError, lag=optional(whole(1)))
def training(run: xr.DataTree | xr.Dataset, *, lag: int | None = None, **look: Unpack[Look]) -> Picture:
    """Draw loss, memory horizon, R(lag), saturation, gradient norm and clip ratio against the training step.

    Each layer and direction has a line; alarms are marks. Quantities that the run does not keep are left out.

    Parameters
    ----------
    run : run, or a layer of one, of any level
    lag : int, optional
        Lag of R; the default is the largest power of two within half of the window, as in `diagnose`.
    **look
        See `tt.plots.Look`: title, width, height.

    Raises
    ------
    PictureError
        There is no dim `step`, or an argument is not as described above.
    SchemaError, DiagnosticError
        There is no layer, or every record of one has a certificate above the limit.
    StoreError
        The alarms of the run are damaged.

    Examples
    --------
    >>> import xarray as xr
    >>> from throughtime import testing
    >>> leaves = [testing.decaying(rate)["rnn"].to_dataset() for rate in (0.3, 0.6, 0.9)]
    >>> picture = training(xr.concat(leaves, dim=xr.DataArray([0, 10, 200], dims="step", name="step")))
    >>> picture.title
    'Memory horizon of rnn grows from 3 to 43 of 49 steps'
    """
    look = checked(look, without=("limits", "share", "scale", "cmap"))
    leaves = layers(run)
    if not all("step" in leaf.dims for _, leaf in leaves):
        raise PictureError("This has no dim 'step': training draws a run that tt.open_run(path) returns.")
    ratios = [each for path, leaf in leaves for each in _ratios(path, leaf)]
    longest = max((_longest(rows) for _, _, rows in ratios), default=0)
    at = lag or 2 ** max(0, ((longest + 1) // 2).bit_length() - 1)
    curves = [*_of_layers(leaves), *_of_ratios(ratios, at), *_of_loop(run)]
    curves = [each for each in curves if np.isfinite(each.values).any()]
    names = list(dict.fromkeys(each.name for each in curves))
    alarms = alarms_of_run(run.attrs)
    panels = tuple(
        _panel(shown, label.format(lag=at), names, [each for each in alarms if each.name in kinds], wide=wide)
        for quantity, (label, wide, kinds) in _PANELS.items()
        if (shown := [each for each in curves if each.quantity == quantity])
    )
    steps = count(max(int(leaf.sizes["step"]) for _, leaf in leaves), "recorded step")
    noun = f"training · {count(len(leaves), 'layer')} · {steps}"
    return in_columns(Picture(panels, note=NOTE, linked="x"), look, (_found(ratios, longest), noun), 2.6, 1.0)


def _ratios(path: str, leaf: xr.Dataset) -> Iterator[tuple[str, Array, Array]]:
    """Yield the median R(k) of each direction: its name, the training steps, and a row for each step."""
    if "lag_ratio" in leaf:
        stored = leaf["lag_ratio"].astype(np.float64).load()
        for name, part in parts(stored, ["step", "lag"]):
            yield dotted(path, name), leaf["step"].values, part.transpose("step", "lag").values
        return
    if not has_state_gradients(leaf):
        return
    places = evenly(int(leaf.sizes["step"]), MOST_RECORDS)
    gaps = np.array([bool(why_refused(leaf.isel(step=place))) for place in places])
    shown = places if gaps.all() else np.array(places)[~gaps]
    records = [profiles(sampled(leaf.isel(step=[place]).load())) for place in shown]
    for which, first in enumerate(records[0]):
        rows = np.full((len(places), len(first.middle)), np.nan)
        rows[~gaps] = [record[which].middle for record in records]
        yield dotted(path, first.direction), leaf["step"].values[places], rows


def _longest(rows: Array) -> int:
    return int(np.flatnonzero(np.isfinite(rows).any(axis=0)).max(initial=0))


def _horizons(rows: Array) -> Array:
    """Return the last lag that reaches the threshold in each row; NaN if a row has no ratio."""
    reached = np.nan_to_num(rows, posinf=0.0) >= REACHES * (1 - ROUNDING)
    last = rows.shape[1] - 1 - reached[:, ::-1].argmax(axis=1)
    return np.where(reached.any(axis=1), last, np.nan)


def _of_ratios(ratios: list[tuple[str, Array, Array]], lag: int) -> Iterator[Trace]:
    for name, steps, rows in ratios:
        yield Trace("horizon", name, steps, _horizons(rows))
        if lag < rows.shape[1]:
            yield Trace("ratio", name, steps, rows[:, lag])


def _of_layers(leaves: list[tuple[str, xr.Dataset]]) -> Iterator[Trace]:
    """Yield the loss of the model, and how far gates are saturated."""
    for path, leaf in leaves:
        steps = leaf["step"].values
        if "loss" in leaf and path == leaves[0][0]:
            yield Trace("loss", "", steps, leaf["loss"].values.astype(np.float64))
        if {"saturation_left", "saturation_right"} <= set(leaf.data_vars):
            both = (leaf["saturation_left"] + leaf["saturation_right"]).max("gate").load()
            for name, part in parts(both, ["step"]):
                yield Trace("saturation", dotted(path, name), steps, part.values)


def _of_loop(run: xr.DataTree | xr.Dataset) -> Iterator[Trace]:
    """Yield the numbers that the training loop passed to the monitor."""
    root = run.to_dataset() if isinstance(run, xr.DataTree) else run
    for name in ("gradient_norm", "clip_ratio"):
        if name in root:
            yield Trace(name, "", root["step"].values, root[name].values.astype(np.float64))


def _panel(curves: list[Trace], label: str, names: list[str], alarms: list[Alarm], *, wide: bool) -> Panel:
    values = np.concatenate([each.values for each in curves])
    scale = _scale(values[np.isfinite(values)], wide=wide)
    shades = {name: hue(place) for place, name in enumerate(names)}
    marks: list[Mark] = []
    for each in curves:
        detail = (("training step", each.steps), ("value", each.values))
        steps = each.steps.astype(float)
        line = scale.curve(each.values)
        marks.append(Line(steps, line, shades[each.name], 1.5, label=each.name, details=detail))
    if alarms:
        at = np.array([float(alarm.step) for alarm in alarms])
        texts = np.array([str(alarm) for alarm in alarms], dtype=object)
        label_of = ", ".join(dict.fromkeys(f"{each.name.replace('_', ' ')} alarm" for each in alarms))
        height = np.full(at.shape, 1.04)
        marks.append(Dots(at, height, ALARM, 6.0, "v", label=label_of, details=(("alarm", texts),)))
    ends = min(float(each.steps[0]) for each in curves), max(float(each.steps[-1]) for each in curves)
    margin = round(0.02 * (ends[1] - ends[0])) + 0.5  # so that ticks are whole numbers
    across = Axis("training step", (ends[0] - margin, ends[1] + margin))
    return Panel(tuple(marks), x=across, y=Axis(scale.label(label), (-0.04, 1.1), scale.ticks()), grid=True)


def _scale(values: Array, *, wide: bool) -> Scale:
    """Fit a scale to finite values: logarithmic over more than a decade, otherwise linear from 0."""
    high = float(values.max()) or 1.0
    positive = values[values > 0]
    if wide and positive.size and values.min() >= 0 and high > 10 * positive.min():
        return Scale("log10", max(float(positive.min()) / 1.2, high * DEEPEST), high * 1.2)
    low = min(0.0, float(values.min()))
    return Scale("linear", low, high if high > low else low + 1.0)


def _found(ratios: list[tuple[str, Array, Array]], longest: int) -> str:
    """Compare the horizon of the first record that has one with the last."""
    detail = []
    for name, _, rows in ratios:
        known = _horizons(rows)
        known = known[np.isfinite(known)]
        if known.size < 2:
            continue
        first, last = int(known[0]), int(known[-1])
        word = "grows from" if last > first else "falls from"
        same = "stays at" if (known == first).all() else "starts and ends at"
        detail.append((name, f"{word} {first} to {last}" if last != first else f"{same} {last}"))
    if not detail or not longest:
        return ""
    of = detail[0][0] if len(ratios) == 1 else ""
    return f"{sentence(subject(of, 'Memory horizon'), detail)} of {count(longest, 'step')}"
