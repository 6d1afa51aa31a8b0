"""Colours that follow the paper: on dark paper, maps of magnitudes are reversed."""

from dataclasses import replace

from matplotlib.colors import to_rgb

from throughtime.picture import Image, Mark, Picture
from throughtime.picture._drawing.colors import Colors
from throughtime.picture._drawing.theme import Theme


def on_paper(picture: Picture, theme: Theme) -> Picture:
    """Return a plot with the colours for the paper of a theme."""
    if sum(to_rgb(theme.paper)) > 1.5:
        return picture
    turned: dict[int, Colors] = {}  # images that share their colours continue to do so

    def dark(mark: Mark) -> Mark:
        if not isinstance(mark, Image):
            return mark
        return replace(mark, colors=turned.setdefault(id(mark.colors), mark.colors.on_dark()))

    panels = (replace(panel, marks=tuple(map(dark, panel.marks))) for panel in picture.panels)
    return replace(picture, panels=tuple(panels))
