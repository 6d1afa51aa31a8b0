"""`Theme`: fonts, sizes and colours of all pictures, in one place.

A picture is laid out without it; the renderers take what they draw with from here.
"""

from __future__ import annotations

from dataclasses import dataclass

from throughtime._arguments import takes
from throughtime._arguments.rules import number, whole
from throughtime._errors import PictureError

# Okabe & Ito 2008, Color Universal Design, without its yellow, which is lost on white.
DISTINCT = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
SCREEN = 110  # pixels an inch in a notebook, as the classic figures have them


@takes(PictureError, size=number(1, 200, "points"), width=number(0.5, 100, "inches"), dpi=whole(1, 4800))
@dataclass(frozen=True)
class Theme:
    """How pictures look: give one to `tt.save` or to a picture's `to_matplotlib` and `to_bokeh`.

    Parameters
    ----------
    font : str
        Family of all text.
    size : float, in points
        Of labels and ticks; the title is a little larger.
    width : float, in inches, optional
        Every picture is scaled to it; by default each has the width it was made with.
    ink, faint, paper : colour
        Of text and axes, of grid lines, and of the background.
    dpi : int
        Of pixels in png files, and of images inside svg and pdf.

    Raises
    ------
    PictureError
        An argument is not as described above.

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
        """Weight of lines and dots: that of the text, 1 at 9 points."""
        return self.size / 9.0

    @classmethod
    def for_paper(cls, width: float = 6.9) -> Theme:
        """Fit a printed page: 6.9 inches are two columns, 3.35 are one.

        Panels that would be too narrow beside each other are put below each other; where that does not help,
        `PictureError` names a width that does.
        """
        return cls(size=7.0, width=width, dpi=300)

    @classmethod
    def for_slides(cls) -> Theme:
        """Fit a slide of 13.3 inches, to be read from the back of a room."""
        return cls(size=16.0, width=12.8, dpi=150)
