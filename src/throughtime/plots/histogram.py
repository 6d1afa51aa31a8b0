"""`histogram`: the distribution of values, by unit, gate, layer or training step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Unpack

import numpy as np
import xarray as xr

from throughtime._errors import PictureError
from throughtime._inputs import takes
from throughtime._inputs.rules import whole
from throughtime.picture import Axis, Band, Image, Line, Mark, Panel, Picture, Text
from throughtime.picture._drawing.colors import Colors
from throughtime.picture._drawing.palettes import COUNTS, palette
from throughtime.picture._drawing.scale import Array, Scale, number
from throughtime.picture._drawing.theme import DISTINCT, hue
from throughtime.plots.axes import labels, thinned
from throughtime.plots.colored import Fitted, fitted
from throughtime.plots.curves import outline
from throughtime.plots.data import Captured, Source, count, dim_called, dotted, has, only_valid, read, title
from throughtime.plots.images import axis_word
from throughtime.plots.look import Look, checked, finished
from throughtime.plots.sentences import percent

FEW_GROUPS = 7
BINS = 60
STEP = axis_word("step")
PEAK = 3.0  # a bin this many times as full as the next group of bins is cut
NOTE = (
    "Height is the share of values in a bin. The legend counts values that are not finite and, on "
    "logarithmic scales, exact zeros."
)


@dataclass(frozen=True)
class Counted:
    """The share of one group in each bin, and a description of the values outside all bins."""

    name: str
    shares: Array
    words: str


@takes(PictureError, bins=whole(2, 1000))
def histogram(
    captured: Captured,
    quantity: str = "hidden_gradient",
    *,
    by: str | None = None,
    bins: int = BINS,
    **look: Unpack[Look],
) -> Picture:
    """Draw how often values occur, over all valid steps and samples.

    A few groups are overlaid curves, training steps a ridge of curves, and many units the columns of an
    image. A peak far above the rest is cut, and the legend gives its height.

    Parameters
    ----------
    captured : capture with one layer, a layer, or DataArray; for `by="layer"` a capture with several
    quantity : str
        Variable to draw. Ignored if `captured` is a DataArray.
    by : "gate", "unit", "direction", "step", "layer", or any dim
        The groups; by default gates, or else directions, or else training steps, or else none.
    bins : int
        Between the ends of the scale.
    **look
        See `tt.plots.Look`: limits, scale, cmap, title, width, height.

    Examples
    --------
    >>> from throughtime import testing
    >>> picture = histogram(testing.constant_gates(0.5), "gate_activation")
    >>> [mark.label.partition(" ·")[0] for mark in picture.panels[0].of(Line)]
    ['input', 'forget', 'candidate', 'output']
    """
    look = checked(look, without=("share",))
    source, groups = _groups(captured, quantity, by)
    everything = np.concatenate([values for _, values in groups])
    fit = fitted(source, everything, look)
    counted = [_counted(name, values, fit.scale, bins) for name, values in groups]
    dim = _dim(source.values, by) if by != "layer" else "layer"
    word = axis_word(dim) if dim else ""
    drawn = _panel(counted, word, fit, bins, look)
    symbol = source.symbol_on(fit.scale)
    detail = title(source, f"by {word}" if word else "", count(everything.size, "value"), symbol=symbol)
    height = min(1.2 + 0.35 * len(groups), 12.0) if dim == "step" else 4.0
    titles = _found(groups, source), detail
    return finished(Picture((drawn,), note=NOTE), look, titles, (8.0, max(height, 3.2)))


def _found(groups: list[tuple[str, Array]], source: Source) -> str:
    """Name the quartiles of magnitudes, or the groups with the largest and smallest median."""
    middles = {
        name: np.quantile(np.abs(values[np.isfinite(values)]), (0.25, 0.5, 0.75))
        for name, values in groups
        if np.isfinite(values).any()
    }
    wrong = np.concatenate([~np.isfinite(values) for _, values in groups])
    what = source.magnitude + (f" of {source.where}" if source.where else "")
    if wrong.any():
        return f"{percent(float(wrong.mean()))} of {what} are NaN or infinite"
    if not source.is_gradient or not middles:
        return ""
    if len(middles) == 1:
        low, _, high = map(number, map(float, next(iter(middles.values()))))
        return f"The middle half of {what} lies between {low} and {high}" if low != high else ""
    most, least = (pick(middles, key=lambda name: middles[name][1]) for pick in (max, min))
    if middles[most][1] == middles[least][1]:
        return ""
    ends = (f"{name} ({number(float(middles[name][1]))})" for name in (most, least))
    return f"Median {source.magnitude} is largest in {' and smallest in '.join(ends)}"


def _groups(captured: Captured, quantity: str, by: str | None) -> tuple[Source, list[tuple[str, Array]]]:
    if by == "layer":
        return _layers(captured, quantity)
    source = read(captured, quantity)
    dim = _dim(source.values, by)
    values = only_valid(source)
    masked = ~_valid_everywhere(source)
    parts = [("", values.values[~masked])]
    if dim:
        axis = values.get_axis_num(dim)
        numbers, hidden = (np.moveaxis(each, axis, 0) for each in (values.values, masked))
        named = zip(labels(source.values, dim), numbers, hidden, strict=True)
        parts = [
            (word if dim in ("gate", "direction") else f"{axis_word(dim)} {word}", part[~away])
            for word, part, away in named
        ]
    return source, [(name, np.asarray(part, dtype=np.float64).ravel()) for name, part in parts]


def _valid_everywhere(source: Source) -> Array:
    valid = xr.ones_like(source.values, dtype=bool)
    valid = valid if source.valid is None else valid & source.valid
    return np.asarray(valid.transpose(*source.values.dims).values)


def _layers(captured: Captured, quantity: str) -> tuple[Source, list[tuple[str, Array]]]:
    if not isinstance(captured, xr.DataTree):
        raise PictureError("by='layer' takes a whole capture; a single layer has by='unit', 'gate' or a dim.")
    leaves = [node for node in captured.leaves if has(node.to_dataset(), quantity)]
    if not leaves:
        return read(captured, quantity), []
    read_each = [_groups(leaf, quantity, "no dim") for leaf in leaves]
    groups = [
        (str(leaf.path).strip("/"), parts[0][1]) for leaf, (_, parts) in zip(leaves, read_each, strict=True)
    ]
    first = read_each[0][0]
    return Source(first.values, first.valid, first.name, first.symbol), groups


def _dim(values: xr.DataArray, by: str | None) -> str | None:
    if by == "no dim":
        return None
    if by is not None:
        return dim_called(values, by, "by")
    return next((dim for dim in ("gate", "direction", "step") if dim in values.dims), None)


def _counted(name: str, values: Array, scale: Scale, bins: int) -> Counted:
    total = max(1, values.size)
    finite = values[np.isfinite(values)]
    zero = finite == 0 if scale.kind != "linear" else np.zeros(finite.shape, bool)
    position = scale.position(finite[~zero])
    below = position < 0 if scale.kind == "log10" else np.zeros(position.shape, bool)
    outside = (position > 1 + 1e-9) | (position < 0) & ~below
    inside = np.clip(position[~below & ~outside], 0.0, 1.0)
    shares = np.histogram(inside, bins, (0.0, 1.0))[0] / total
    exact = int((finite == 0).sum())
    parts = {
        "exactly 0": exact,
        f"below {number(scale.low)}": int(below.sum()),
        "outside": int(outside.sum()),
        "NaN": int(np.isnan(values).sum()),
        "±∞": int(np.isinf(values).sum()),
    }
    return Counted(
        name, shares, ", ".join(f"{percent(each / total)} {word}" for word, each in parts.items() if each)
    )


def _panel(counted: list[Counted], word: str, fit: Fitted, bins: int, look: Look) -> Panel:
    room = 0.3 if word == STEP and any(each.words for each in counted) else 0.0
    across, edges = Axis(fit.label, (0.0, 1.0 + room), fit.scale.ticks()), np.linspace(0.0, 1.0, bins + 1)
    if word == STEP:
        steps = thinned([each.name.removeprefix(f"{STEP} ") for each in counted], 12)
        down = Axis(word, None, tuple((len(counted) - 1 - at, step) for at, step in steps))
        return Panel(tuple(_ridge(counted, edges)), x=across, y=down, grid=True)
    if len(counted) > FEW_GROUPS:
        return _image(counted, word, fit, look)
    top, cut = _top(counted)
    marks = [mark for place, each in enumerate(counted) for mark in _curve(each, place, edges, top, cut)]
    return Panel(tuple(marks), x=across, y=Axis("share of values", (0.0, 1.05 * top)), grid=True)


def _top(counted: list[Counted]) -> tuple[float, bool]:
    """Return the height of the axis, and whether a peak exceeds it."""
    highest = float(max((each.shares.max(initial=0.0) for each in counted), default=0.0)) or 1.0
    filled = np.concatenate([each.shares[each.shares > 0] for each in counted] or [np.zeros(0)])
    usual = float(np.quantile(filled, 0.97)) if filled.size > 20 else highest
    return (PEAK * usual, True) if highest > 2 * PEAK * usual else (highest, False)


def _curve(each: Counted, place: int, edges: Array, top: float, cut: bool) -> list[Mark]:
    peak = f"peak {percent(each.shares.max())} cut" if cut and each.shares.max() > top else ""
    label = dotted(each.name, each.words, peak)
    return outline(edges, each.shares, hue(place), label, top=1.05 * top)


def _ridge(counted: list[Counted], edges: Array) -> Iterator[Mark]:
    """Draw one curve for each training step, the first at the top, each on a separate base line."""
    highest = max((each.shares.max(initial=0.0) for each in counted), default=0.0) or 1.0
    for place, each in enumerate(counted):
        base = float(len(counted) - 1 - place)
        x, y = np.repeat(edges, 2)[1:-1], base + 1.6 * np.repeat(each.shares, 2) / highest
        yield Band(x, np.full_like(y, base), y, DISTINCT[0], 0.55)
        yield Line(x, y, "#1d3c55", 0.7, details=(("share", np.repeat(each.shares, 2)),))
    words = tuple(each.words for each in counted)
    at = np.arange(len(counted))[::-1].astype(float)
    if any(words):
        yield Text(np.full(len(counted), 1.01), at + 0.06, words, 0.75, "#555555")


def _image(counted: list[Counted], word: str, fit: Fitted, look: Look) -> Panel:
    shares = np.stack([each.shares for each in counted], axis=1)
    scale = Scale("linear", 0.0, float(shares.max()) or 1.0)
    fill = Colors(
        palette(look.get("cmap") or COUNTS), scale, f"share of a {word}'s values", unlisted=("zero",)
    )
    image = Image(shares, (-0.5, len(counted) - 0.5), (0.0, 1.0), fill)
    across = Axis(word, (-0.5, len(counted) - 0.5))
    return Panel((image,), x=across, y=Axis(fit.label, (0.0, 1.0), fit.scale.ticks()))
