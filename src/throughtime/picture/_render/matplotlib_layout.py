"""Layout of a narrow figure: titles in lines, separate tick labels, panels that are wide enough."""

import math
import warnings
from collections.abc import Iterable
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

from throughtime._errors import PictureError
from throughtime.picture import Image, Picture
from throughtime.picture._drawing.theme import Theme

PAGE, LOWEST = 10.5, 0.95  # inches of a page and of a row of panels with text of 9 points
_APART = 0.035  # inches between tick labels
NARROWEST, ENOUGH = 1.0, 1.65  # least inches of a panel with text of 9 points, and inches for any legend


def wrapped(words: str, width: float, size: float) -> list[str]:
    """Break words into lines of at most a width in points."""
    if len(words) * size <= width:  # few words have room in any font
        return [words]
    font = FontProperties(size=size)
    lines = [""]
    for word in words.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and TextToPath().get_text_width_height_descent(longer, font, ismath=False)[0] > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def stacked(picture: Picture) -> Picture:
    """Reduce the panels per row such that all rows are full, on at most a page."""
    columns = next(each for each in range(picture.columns - 1, 0, -1) if picture.columns % each == 0)
    panels = picture.panels
    if len({id(image.colors) for image in picture.marks(Image)}) > 1:  # columns have a colour bar each
        panels = tuple(
            panel for start in range(picture.columns) for panel in panels[start :: picture.columns]
        )
    rows = -(-len(panels) // columns)
    height = rows * picture.height / picture.rows
    return replace(
        picture,
        panels=panels,
        columns=columns,
        width=picture.width * columns / picture.columns,
        height=min(height, max(PAGE, rows * LOWEST)),
        heights=(),
    )


def lay_out(figure: Figure, axes: Iterable[Any], picture: Picture, theme: Theme) -> None:
    """Lay out a plot, and check that it is legible."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="constrained_layout not applied")  # what is checked here
        figure.draw_without_rendering()  # colour bars have their height only then
    lacks, has = max((_needed(ax, theme) - _width(ax), _width(ax)) for ax in axes)
    if lacks > 0:
        wide = figure.get_figwidth() + picture.columns * lacks / figure.dpi
        raise PictureError(
            f"Theme(width={theme.width:g}) leaves {max(0.0, has / figure.dpi):.1f} inches for a panel, too "
            f"few to read this plot. Pass width={math.ceil(10 * wide + 0.5) / 10:g}."
        )


def hide_overlaps(figure: Figure) -> None:
    """Omit tick labels that overlap, and shorten words that run into the next ones in their row."""
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            _hide_overlaps(axis)
        edge = ax.get_window_extent().x1 if ax.images else math.inf
        for text, following in zip_longest(ax.texts, ax.texts[1:]):
            while len(words := text.get_text()) > 1 and _runs_over(text, following, edge):
                text.set_text(f"{words.removesuffix('…')[:-1]}…")


def _runs_over(text: Any, following: Any, edge: float) -> bool:
    box = text.get_window_extent()
    is_beyond = text.get_ha() == "left" and box.x0 < edge < box.x1 - 1
    return is_beyond or (following is not None and bool(box.overlaps(following.get_window_extent())))


def _needed(ax: Any, theme: Theme) -> float:
    """Return the width that a panel needs for its drawing, legend and label, in pixels."""
    texts = [ax.xaxis.label, *filter(None, [ax.get_legend()])]
    inside = max(_width(text) for text in texts) / (theme.weight * ax.figure.dpi)
    return float(min(max(NARROWEST, inside), ENOUGH) * theme.weight * ax.figure.dpi)


def _width(artist: Any) -> float:
    return float(artist.get_window_extent().width)


def _hide_overlaps(axis: Any) -> None:
    last = None
    for label in axis.get_ticklabels():
        if not label.get_text() or not label.get_visible():
            continue
        box = label.get_window_extent()
        if last is not None and box.padded(_APART * axis.figure.dpi, 1.5).overlaps(last):
            label.set_visible(False)
        else:
            last = box
