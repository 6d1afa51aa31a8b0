"""Colours that follow the paper: on dark paper, maps of magnitudes are reversed."""

from __future__ import annotations

from dataclasses import replace

from matplotlib.colors import to_rgb

from throughtime._drawing.colors import Colors
from throughtime._drawing.theme import Theme
from throughtime.picture import Image, Mark, Picture

_LUMINANCE = (0.2126, 0.7152, 0.0722)


def on_paper(picture: Picture, theme: Theme) -> Picture:
    """Return a plot with the colours for the paper of a theme."""
    if luminance(theme.paper) > 0.2:
        return picture
    turned: dict[int, Colors] = {}  # images that share their colours continue to do so

    def dark(mark: Mark) -> Mark:
        if not isinstance(mark, Image):
            return mark
        return replace(mark, colors=turned.setdefault(id(mark.colors), mark.colors.on_dark()))

    panels = (replace(panel, marks=tuple(map(dark, panel.marks))) for panel in picture.panels)
    return replace(picture, panels=tuple(panels))


def luminance(color: str) -> float:
    """Return the relative luminance of a colour, 0 to 1.

    Examples
    --------
    >>> luminance("white"), luminance("#000000")
    (1.0, 0.0)
    """
    linear = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(color))
    return sum(share * part for share, part in zip(_LUMINANCE, linear, strict=True))
