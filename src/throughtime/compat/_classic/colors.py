"""Colours of the classic plots: of samples and units, and of values by the `norm` of `show_features_2D`."""

import copy
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import colors as mcolors
from matplotlib.colors import Normalize

from throughtime._errors import FeatureError, PictureError, did_you_mean
from throughtime._inputs.rules import Rule, describe, rising
from throughtime.compat._classic.data import Features, Values
from throughtime.compat._classic.look import shorten
from throughtime.picture._drawing.palettes import palette
from throughtime.picture._drawing.scale import largest_magnitude
from throughtime.picture._drawing.theme import DISTINCT

RGBA = tuple[float, float, float, float]

ALARM = "#C0143C"
LIGHTEST = 0.72  # relative luminance above which a line or marker is invisible on white


def colors(color: Any, count: int, cmap: Any = None) -> list[RGBA]:
    """Return one colour for each of `count` lines or markers; what is no colour raises FeatureError.

    An int is a position in matplotlib's colour cycle, a sequence that is too short is repeated, None and
    bools are default colours: those of `cmap`, which without `cmap` only more lines need than have distinct
    colours.

    >>> colors("red", 2)
    [(1.0, 0.0, 0.0, 1.0), (1.0, 0.0, 0.0, 1.0)]
    """
    if color is None or isinstance(color, bool):
        if cmap is None and count <= len(DISTINCT):
            return [mcolors.to_rgba(name) for name in DISTINCT[:count]]
        return _sample("viridis" if cmap is None else cmap, count)
    is_one = mcolors.is_color_like(color) or isinstance(color, str | int | np.integer)
    is_one = is_one or not hasattr(color, "__iter__") or getattr(color, "shape", None) == ()
    given = [color] if is_one else list(color)
    if not given:
        raise FeatureError("color=[] is empty. Pass a colour, a list of colours or None.")
    return [_rgba(given[index % len(given)]) for index in range(count)]


def _sample(cmap: Any, count: int) -> list[RGBA]:
    """Evenly spaced colours of a map without its pale ones: the middle of `bwr` is white on white."""
    table = colormap(cmap)(np.linspace(0, 1, 256))
    luminance = table[:, :3] @ np.array([0.2126, 0.7152, 0.0722])
    visible = table[luminance < LIGHTEST]
    table = visible if len(visible) else table
    places = np.linspace(0, len(table) - 1, count).round().astype(int)
    return [mcolors.to_rgba(tuple(table[place])) for place in places]


def colormap(cmap: Any) -> mcolors.Colormap:
    """Return a colour map by its name, of matplotlib or, as `tt.plots` takes them, of cmcrameri."""
    if isinstance(cmap, mcolors.Colormap):
        return cmap
    if isinstance(cmap, str) and cmap in mpl.colormaps:
        return mpl.colormaps[cmap]
    try:
        return mcolors.ListedColormap(list(palette(cmap)), name=str(cmap))
    except PictureError:
        hint = did_you_mean(describe(cmap), mpl.colormaps) or " Try 'bwr', 'vik', 'batlow' or 'viridis'."
        raise FeatureError(f"There is no colour map {describe(cmap)}.{hint}") from None


def _rgba(color: Any) -> RGBA:
    if isinstance(color, int | np.integer):
        color = f"C{color}"
    try:
        return mcolors.to_rgba(color)
    except (ValueError, TypeError) as error:
        raise FeatureError(
            f"{color!r} is not a colour. Pass a name ('red', 'C0', '#0072B2'), an RGB tuple of numbers from "
            "0 to 1, or a list of those."
        ) from error


def _norm(value: Any) -> Any:
    is_ready = value is None or isinstance(value, Normalize) or (isinstance(value, str) and value == "auto")
    return value if is_ready else rising.take(value)


NORM = Rule(
    _norm,
    "'auto' (a range for each panel), None (one range for all panels), (low, high) with low < high, or a "
    "matplotlib norm such as SymLogNorm(1e-6)",
)


@dataclass(frozen=True)
class PanelNorms:
    """The norm of all panels, or None if each panel has a separate symmetric range."""

    shared: Normalize | None
    words: str
    limited: bool = False  # values may lie outside

    def of(self, values: Values) -> Normalize:
        return self.shared or symmetric(values)


def norms(norm: Any, values: Values) -> PanelNorms:
    if norm is None:
        return PanelNorms(symmetric(values), range_of(values))
    if isinstance(norm, str):
        return PanelNorms(None, "each panel its own range")
    if isinstance(norm, Normalize):
        shared = copy.deepcopy(norm)  # scaling would change the caller's norm
        shared.autoscale_None(values[np.isfinite(values)])
        return PanelNorms(shared, f"{type(norm).__name__} {_span(shared)}", limited=True)
    shared = Normalize(*norm)
    return PanelNorms(shared, f"range {_span(shared)}", limited=True)


def symmetric(values: Values) -> Normalize:
    """Return a norm with zero in the middle; ±1 if all values are 0."""
    largest = largest_magnitude(values) or 1.0
    return Normalize(-largest, largest)


def range_of(values: Values) -> str:
    """Format a symmetric range, such as "range ±2.5"."""
    largest = largest_magnitude(values)
    return f"range ±{shorten(largest)}" if largest else "range 0"


def _span(norm: Normalize) -> str:
    return "" if norm.vmin is None or norm.vmax is None else f"{shorten(norm.vmin)} to {shorten(norm.vmax)}"


def clipped_note(features: Features, chosen: PanelNorms) -> str:
    """Count the finite values outside the range."""
    norm, values = chosen.shared, features.values
    if not chosen.limited or norm is None or norm.vmin is None or norm.vmax is None:
        return ""
    outside = int((np.isfinite(values) & ((values < norm.vmin) | (values > norm.vmax))).sum())
    return f"{outside} outside" if outside else ""
