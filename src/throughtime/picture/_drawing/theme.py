"""`Theme`: fonts, sizes and colours of all plots, which only the renderers use."""

from __future__ import annotations

from dataclasses import dataclass

from throughtime._errors import PictureError
from throughtime._inputs import takes
from throughtime._inputs.rules import number, whole

# Okabe & Ito 2008, Color Universal Design, without its yellow, which is invisible on white.
DISTINCT = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
SCREEN = 110  # pixels an inch in a notebook, as the classic figures have them


def hue(place: int) -> str:
    """Return the colour of one of several curves; after the last colour they repeat."""
    return DISTINCT[place % len(DISTINCT)]


@takes(PictureError, size=number(1, 200, "points"), width=number(0.5, 100, "inches"), dpi=whole(1, 4800))
@dataclass(frozen=True)
class Theme:
    """The look of plots, for `tt.save` and for `to_matplotlib` and `to_bokeh` of a `Picture`.

    Parameters
    ----------
    font : str
        Family of all text.
    size : float, in points
        Size of labels and ticks; the title is a little larger.
    width : float, in inches, optional
        Width to which every plot is scaled; by default plots keep their width.
    ink, faint, paper : colour
        Colours of text and axes, of grid lines, and of the background.
    dpi : int
        Resolution of png files, and of images inside svg and pdf.

    Examples
    --------
    >>> Theme.for_paper().width, Theme.for_slides().size
    (6.9, 16.0)
    """

    font: str = "DejaVu Sans"
    size: float = 9.0
    width: float | None = None
    ink: str = "#2b2b2b"
    faint: str = "#d9d9d9"
    paper: str = "#ffffff"
    dpi: int = 150

    @property
    def soft(self) -> str:
        """Colour of subtitles: the ink, lighter."""
        return f"{self.ink}b3" if len(self.ink) == 7 and self.ink.startswith("#") else self.ink

    @property
    def weight(self) -> float:
        """Weight of lines and dots, in proportion to the text: 1 at 9 points."""
        return self.size / 9.0

    @classmethod
    def for_paper(cls, width: float = 6.9) -> Theme:
        """Fit a printed page: 6.9 inches are two columns, 3.35 are one.

        Panels that would be too narrow side by side are stacked; if they are still too narrow, `PictureError`
        names a sufficient width.
        """
        return cls(size=7.0, width=width, dpi=300)

    @classmethod
    def for_slides(cls) -> Theme:
        """Fit a slide of 13.3 inches, legible from the back of a room."""
        return cls(size=16.0, width=12.8, dpi=150)
