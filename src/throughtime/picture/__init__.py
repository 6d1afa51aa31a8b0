"""`Picture`: a plot before it is drawn, as marks over arrays in panels with axes.

`tt.plots` makes one from a capture, the renderers draw it, and tests read its arrays. All classes are frozen
and check their arguments. Names and labels come from models and runs, so every text is made printable.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from throughtime._common.text.printable import Printable
from throughtime._errors import PictureError
from throughtime._inputs import takes
from throughtime._inputs.rules import (
    Rule,
    choice,
    instance,
    interval,
    number,
    optional,
    several,
    text,
    where,
    whole,
)
from throughtime.picture._drawing.marks import Band, Dots, Image, Line, Rectangles, Text
from throughtime.picture._drawing.scale import Ticks
from throughtime.picture._drawing.theme import SCREEN, Theme

Kind = TypeVar("Kind")
Mark = Image | Line | Band | Rectangles | Dots | Text

__all__ = [
    "Axis", "Band", "Dots", "Image", "Interactive", "Line", "Panel", "Picture", "Rectangles", "Slider",
    "Text",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__


def _ticks(value: Any) -> Ticks:
    return tuple((number().take(place), text.take(word)) for place, word in value)


_LIMITS = optional(where(lambda ends: ends[0] != ends[1], "two finite numbers that differ", rule=interval))
_TICKS = optional(Rule(_ticks, "pairs of a position and a word"))
_MARKS = several(
    where(lambda value: isinstance(value, Mark), "marks: Image, Line, Band, Rectangles, Dots or Text")
)
_LENGTH = number(0.1, 1000, "inches")


@takes(PictureError, limits=_LIMITS, ticks=_TICKS)
@dataclass(frozen=True)
class Axis(Printable):
    """Label, limits and optional ticks, each a position with its words."""

    label: str = ""
    limits: tuple[float, float] | None = None
    ticks: Ticks | None = None
    reversed: bool = False

    @property
    def counts(self) -> bool:
        """Whether positions are whole numbers, such as timesteps: the axis begins half a step before."""
        return self.limits is not None and min(self.limits) % 1 == 0.5


@takes(PictureError, marks=_MARKS, x=instance("Axis"), y=instance("Axis"))
@dataclass(frozen=True)
class Panel(Printable):
    """One pair of axes with its marks, in the order of drawing; without a frame there are no axis lines."""

    marks: tuple[Mark, ...]
    title: str = ""
    x: Axis = Axis()
    y: Axis = Axis()
    equal: bool = False
    grid: bool = False
    framed: bool = True

    def of(self, kind: type[Kind]) -> list[Kind]:
        """List the marks of one kind."""
        return [mark for mark in self.marks if isinstance(mark, kind)]

    @property
    def span(self) -> tuple[float, float]:
        """Length of each axis that has images."""
        edges = [(image.x, image.y) for image in self.of(Image)]
        lengths = []
        for axis, limits in enumerate((self.x.limits, self.y.limits)):
            ends = limits or tuple(end for pair in edges for end in pair[axis]) or (0.0, 1.0)
            lengths.append(float(max(ends) - min(ends)))
        return lengths[0], lengths[1]


@takes(PictureError, words=several(text))
@dataclass(frozen=True)
class Slider(Printable):
    """A dim whose values are frames: its name, and a word for each frame."""

    name: str
    words: tuple[str, ...]


@takes(
    PictureError,
    panels=several(instance("Panel")),
    sliders=several(instance("Slider")),
    titles=several(text),
    linked=choice("", "x", "y", "xy"),
    shown=whole(0),
    width=_LENGTH,
    height=_LENGTH,
    heights=several(_LENGTH),
)
@dataclass(frozen=True)
class Picture(Printable):
    """Panels in a grid, with a title: what `tt.plots` returns and `tt.save` writes.

    In a notebook it shows itself. Frames of several sliders are in C order, the last slider fastest; a static
    plot shows frame number `shown`.

    Parameters
    ----------
    panels : tuple of Panel
        Row by row.
    columns : int
        Panels per row.
    title, subtitle, note : str
        The finding, if the numbers show one; the quantity and layer; how to read the plot.
    width, height : float, in inches
    linked : str
        Axes that all panels share: "", "x", "y" or "xy".
    sliders : tuple of Slider
    shown : int
    titles : tuple of str
        A title for each frame, if they differ; `title` is that of the frame shown.

    Examples
    --------
    >>> line = Line(np.arange(3.0), np.array([0.0, 1.0, 4.0]))
    >>> picture = Picture((Panel((line,), x=Axis("time")),), title="squares")
    >>> picture.panels[0].marks[0].y.max()
    np.float64(4.0)
    """

    panels: tuple[Panel, ...]
    columns: int = 1
    title: str = ""
    note: str = ""
    width: float = 9.0
    height: float = 4.0
    linked: str = ""
    sliders: tuple[Slider, ...] = ()
    shown: int = 0
    heights: tuple[float, ...] = field(default=())
    subtitle: str = ""
    titles: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.panels:
            raise PictureError("A Picture needs at least one Panel.")
        if self.titles and len(self.titles) != self.frames:
            raise PictureError(
                f"There are {len(self.titles)} titles, and the sliders have {self.frames} frames."
            )
        if self.shown >= self.frames:
            raise PictureError(f"shown={self.shown}: the sliders have {self.frames} frames, counted from 0.")
        if self.heights and len(self.heights) != self.rows:
            raise PictureError(f"heights={self.heights}: expected {self.rows}, one a row of panels.")
        counts = {mark.frames for mark in self.marks(Image)} | {
            len(line.y) for line in self.marks(Line) if line.y.ndim == 2
        }
        if counts - {1, self.frames}:
            raise PictureError(f"Marks have {sorted(counts)} frames, and the sliders {self.frames}.")

    @property
    def rows(self) -> int:
        """Rows of the grid of panels."""
        return -(-len(self.panels) // self.columns)

    @property
    def frames(self) -> int:
        """Product of the sliders' lengths, 1 without any."""
        return int(np.prod([len(slider.words) for slider in self.sliders], dtype=int))

    def marks(self, kind: type[Kind]) -> list[Kind]:
        """List all marks of one kind, panel by panel."""
        return [mark for panel in self.panels for mark in panel.of(kind)]

    def frame_words(self, number: int) -> str:
        """Name a frame, such as "sample 3 · step 200"; empty without sliders."""
        places = np.unravel_index(number, [len(slider.words) for slider in self.sliders] or [1])
        named = zip(self.sliders, places, strict=False)
        return " · ".join(f"{slider.name} {slider.words[place]}" for slider, place in named)

    def to_matplotlib(self, theme: Theme | None = None) -> Any:
        """Draw with matplotlib.

        Returns
        -------
        matplotlib.figure.Figure, not registered with pyplot
        """
        from throughtime.picture._render.matplotlib import draw  # noqa: PLC0415 - drawing libraries load late

        return draw(self, theme or Theme())

    def to_bokeh(self, theme: Theme | None = None) -> Any:
        """Draw with Bokeh.

        Returns
        -------
        Bokeh layout of figures and sliders, for `bokeh.io.show` or a custom page
        """
        from throughtime.picture._render.bokeh import draw  # noqa: PLC0415 - drawing libraries load late

        return draw(self, theme or Theme())

    def interactive(self, theme: Theme | None = None) -> Interactive:
        """Return an object that a notebook shows with zoom, hover and sliders."""
        return Interactive(self, theme or Theme())

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """Draw with two pixels for each one on the screen, and as large as the classic figures."""
        from throughtime.picture._render.matplotlib import encoded  # noqa: PLC0415 - drawing libraries load late

        png = encoded(self, Theme(dpi=2 * SCREEN))
        width, height = (int.from_bytes(png[place : place + 4], "big") for place in (16, 20))
        return png, {"width": width // 2, "height": height // 2}

    def __repr__(self) -> str:
        return f"<Picture: {self.title or 'untitled'} · {len(self.panels)} panel(s)>"


@dataclass(frozen=True)
class Interactive:
    """An interactive plot that a notebook shows offline, in a separate frame."""

    picture: Picture
    theme: Theme

    def _repr_html_(self) -> str:
        from throughtime.picture._render.page import in_a_frame  # noqa: PLC0415 - drawing libraries load late

        framed: str = in_a_frame(self.picture, self.theme)
        return framed
