"""Colours for samples and units: the caller's, or colours that colour-blind readers can distinguish."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import colors as mcolors

from throughtime._arguments.rules import shown
from throughtime._drawing.palettes import palette
from throughtime._drawing.theme import DISTINCT
from throughtime._errors import FeatureError, PictureError, did_you_mean

RGBA = tuple[float, float, float, float]

ALARM = "#C0143C"
LIGHTEST = 0.72  # relative luminance above which a line or marker is invisible on white


def colors(color: Any, count: int, cmap: Any = None) -> list[RGBA]:
    """Return one colour for each of `count` lines or markers; what is no colour raises FeatureError.

    An int is a position in matplotlib's colour cycle, a sequence that is too short is repeated, None and
    bools are default colours: those of `cmap`, which without `cmap` only more lines need than have distinct
    colours.

    Examples
    --------
    >>> colors("red", 2)
    [(1.0, 0.0, 0.0, 1.0), (1.0, 0.0, 0.0, 1.0)]
    """
    if color is None or isinstance(color, bool):
        if cmap is None and count <= len(DISTINCT):
            return [mcolors.to_rgba(name) for name in DISTINCT[:count]]
        return _sampled("viridis" if cmap is None else cmap, count)
    is_one = mcolors.is_color_like(color) or isinstance(color, str | int | np.integer)
    is_one = is_one or not hasattr(color, "__iter__") or getattr(color, "shape", None) == ()
    given = [color] if is_one else list(color)
    if not given:
        raise FeatureError("color=[] is empty. Pass a colour, a list of colours or None.")
    return [_rgba(given[index % len(given)]) for index in range(count)]


def _sampled(cmap: Any, count: int) -> list[RGBA]:
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
        hint = did_you_mean(shown(cmap), mpl.colormaps) or " Try 'bwr', 'vik', 'batlow' or 'viridis'."
        raise FeatureError(f"There is no colour map {shown(cmap)}.{hint}") from None


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
