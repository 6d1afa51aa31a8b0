"""`compare`: the same quantity of two layers, models or training steps, on one scale."""

from __future__ import annotations

from dataclasses import replace
from typing import Unpack

import numpy as np

from throughtime._errors import PictureError
from throughtime._inputs import takes
from throughtime._inputs.rules import choice
from throughtime.picture import Axis, Mark, Panel, Picture
from throughtime.picture._drawing.colors import Colors
from throughtime.picture._drawing.scale import Array, Scale
from throughtime.picture._drawing.theme import DISTINCT
from throughtime.plots.arrange import arranged
from throughtime.plots.axes import time_axis
from throughtime.plots.colored import OWN, colors, fitted, own_scale
from throughtime.plots.curves import median_band, norms
from throughtime.plots.data import Captured, Source, count, dim_called, dotted, only_valid, parts, read, title
from throughtime.plots.heatmap import few_samples, height_of
from throughtime.plots.images import panels_of
from throughtime.plots.look import Look, checked, finished, in_columns
from throughtime.plots.recorded import band
from throughtime.plots.sentences import percent, undrawn

KINDS = ("curves", "heatmap")
NOTE = (
    "Both sides share one scale. Norms of different models differ for many reasons: compare where they "
    "change, not which is larger."
)
OF_CURVES = " A line is the median over samples, a band the middle 80 % of them."


@takes(PictureError, kind=choice(*KINDS))
def compare(
    first: Captured,
    second: Captured,
    quantity: str = "hidden_gradient",
    *,
    kind: str = "curves",
    names: tuple[str, str] | None = None,
    **look: Unpack[Look],
) -> Picture:
    """Draw two captures, layers or training steps on one scale, with a panel for each direction and gate.

    Parameters
    ----------
    first, second : capture with one layer, a layer, or DataArray
        For two steps of a stored run: `run["lstm"].sel(step=0)` and `run["lstm"].sel(step=500)`.
    quantity : str
        A variable that both sides have. An LSTM keeps its memory in the cell state, whose gradient is
        `cell_gradient`; `gradient_flow` draws the gradients of hidden and cell state together.
    kind : "curves" or "heatmap"
        The norm over units against time, in one colour for each side; or unit by timestep, side by side.
    names : two str, optional
        Names of the two sides; by default their layers, and the step if they have one.
    **look
        See `tt.plots.Look`. With `share=False` each side is divided by its largest magnitude.

    Raises
    ------
    SchemaError
        One of them lacks the quantity, or has several layers.
    PictureError
        There is no axis of time, or two heatmaps differ in their number of directions or gates.

    Examples
    --------
    >>> from throughtime import testing
    >>> from throughtime.picture import Line
    >>> picture = compare(testing.decaying(0.5), testing.decaying(0.9), names=("short", "long"))
    >>> picture.title
    'At timestep 0 short has <0.1 % of its peak hidden gradient, and long has 0.6 %'
    >>> [line.label for line in picture.panels[0].of(Line)]
    ['short', 'long']
    """
    look = checked(look)
    sources = [few_samples(read(each, quantity).latest(), (), None) for each in (first, second)]
    for source in sources:
        dim_called(source.values, "time", "the horizontal axis")
    if look.get("share") is False:
        sources = [_divided(source) for source in sources]
    words = _names(sources, names)
    samples = [source.values.sizes.get("sample", 1) for source in sources]
    same = samples[0] == samples[1]
    detail = count(samples[0], "sample") if same else f"{samples[0]} and {samples[1]} samples"
    detail = dotted(detail, undrawn(*sources))
    plain = replace(sources[0], where="", values=sources[0].values.reset_coords(drop=True))
    if kind == "curves":
        return _as_curves(sources, words, look, title(plain, detail, "compared", symbol=plain.norm))
    return _as_heatmaps(sources, words, look, plain, detail)


def _as_heatmaps(sources: list[Source], words: list[str], look: Look, plain: Source, detail: str) -> Picture:
    shown = np.concatenate([only_valid(source).values.ravel() for source in sources])
    fit = colors(sources[0], shown, look)
    sides = [_side(source, name, fit) for source, name in zip(sources, words, strict=True)]
    if len(sides[0]) != len(sides[1]):
        raise PictureError(
            f"The two sides have {len(sides[0])} and {len(sides[1])} panels, for directions or gates. Choose "
            "one of them: .sel(direction='forward')."
        )
    panels = tuple(panel for row in zip(*sides, strict=True) for panel in row)
    symbol = sources[0].symbol_on(fit.scale)
    is_linked = len({(panel.x.limits, panel.y.limits) for panel in panels}) == 1
    picture = Picture(panels, columns=2, note=NOTE, linked="xy" if is_linked else "")
    noun = title(plain, detail, "compared", symbol=symbol.removesuffix(OWN))
    return finished(picture, look, ("", noun), (12.0, height_of(panels, 2)))


Bands = dict[str, tuple[Array, Array, Array]]  # by direction or gate: low end, median, high end


def _as_curves(sources: list[Source], words: list[str], look: Look, noun: str) -> Picture:
    sides = [_bands(source) for source in sources]
    everything = np.concatenate([np.concatenate(each) for side in sides for each in side.values()])
    shown = replace(sources[0], symbol=sources[0].norm)
    fit = fitted(shown, everything, look)
    scale = fit.scale
    if scale.kind == "linear" and look.get("limits") is None:
        scale = Scale("linear", 0.0, scale.high)  # norms are not negative
    if any("forward" in side for side in sides):  # a side with one direction belongs to that
        sides = [{name or "forward": each for name, each in side.items()} for side in sides]
    steps = max(len(each[1]) for side in sides for each in side.values())
    axes = (
        time_axis(max(sources, key=lambda each: each.values.sizes["time"]).values, steps),
        Axis(fit.label, (-0.04, 1.06), scale.ticks()),
    )
    parts_of = list(dict.fromkeys(name for side in sides for name in side))
    panels = tuple(Panel(_marks(sides, name, words, scale), name, *axes, grid=True) for name in parts_of)
    found = _fades(sides, words, sources[0].noun) if sources[0].is_gradient else ""
    return in_columns(Picture(panels, note=NOTE + OF_CURVES, linked="xy"), look, (found, noun), 3.6, 0.6)


def _bands(source: Source) -> Bands:
    """Return quantiles over samples of the norm over units, at each timestep."""
    found = norms(only_valid(source), ("sample", "time", "direction", "gate"))
    found = found if "sample" in found.dims else found.expand_dims("sample")
    return {name: band(part) for name, part in parts(found, ["sample", "time"])}


def _marks(sides: list[Bands], name: str, words: list[str], scale: Scale) -> tuple[Mark, ...]:
    marks: list[Mark] = []
    for side, word, color in zip(sides, words, DISTINCT, strict=False):
        if name in side:
            marks += median_band(side[name], color, scale, labels=("", word))
    return tuple(marks)


def _fades(sides: list[Bands], words: list[str], noun: str) -> str:
    """Compare both gradients at the step that is processed first."""
    found = []
    name = next(iter(sides[0]))
    for side, word in zip(sides, words, strict=True):
        middle = side.get(name, (np.empty(0),) * 3)[1]
        known = np.flatnonzero(np.isfinite(middle))
        if known.size > 1 and (peak := float(middle[known].max())) > 0:
            place = int(known[-1] if "backward" in name else known[0])
            found.append((place, word, percent(float(middle[place]) / peak)))
    if len(found) < 2 or found[0][0] != found[1][0]:
        return ""
    (place, one, left), (_, other, right) = found
    where = f"At timestep {place}{f', {name},' if name else ''}"
    return f"{where} {one} has {left} of its peak {noun}, and {other} has {right}"


def _divided(source: Source) -> Source:
    values = only_valid(source)
    return source.with_values(values.copy(data=own_scale(values.values, tuple(range(values.ndim)))))


def _names(sources: list[Source], names: tuple[str, str] | None) -> list[str]:
    if names is not None:
        if len(names) != 2:
            raise PictureError(f"names={names!r}: expected two, one for each side.")
        return [str(name) for name in names]
    found = []
    for place, source in enumerate(sources):
        step = source.values.coords.get("step")
        words = [source.where, f"step {step.item()}" if step is not None and step.ndim == 0 else ""]
        found.append(dotted(*words) or ("first", "second")[place])
    return found if found[0] != found[1] else [f"first · {found[0]}", f"second · {found[1]}"]


def _side(source: Source, name: str, fit: Colors) -> list[Panel]:
    layout = arranged(source.values, None, "time", ())
    panels = panels_of(source, layout, fit)
    return [replace(panel, title=dotted(name, panel.title)) for panel in panels]
