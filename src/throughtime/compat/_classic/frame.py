"""The grid of panels of every classic plot: separate subplots, or one Axes with many cells.

`panels` opens the grid, a `show_…` function draws into it, and `panels` saves the result. Beyond
`MOST_SUBPLOTS` panels matplotlib takes seconds, so one Axes then holds all of them as cells.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, NamedTuple, Self

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from throughtime._common.text.printable import printable
from throughtime._errors import FeatureError, warn
from throughtime._inputs.rules import Rule, describe, number, optional, require
from throughtime._inputs.rules import path as path_rule
from throughtime._inputs.structures import leaves
from throughtime.compat._classic.look import INK, wrap
from throughtime.picture._render.save import checked_path, write

MOST_SUBPLOTS = 64
WIDEST = 12.0  # inches, which a notebook shows without shrinking
TALLEST = 8.0
SCREEN, FILE = 110, 200  # pixels an inch


@dataclass(frozen=True, kw_only=True)
class FigureOptions:
    """The arguments that the classic functions share: everything around the data."""

    n_rows: int | None = None
    show_title: bool | str
    title_fontsize: float
    show_borders: bool
    show_xy_ticks: tuple[bool, bool]
    scale_width: float
    scale_height: float
    dpi: float | None
    axes: Any
    figure: Any
    savepath: Any

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Self:
        """Select these from all arguments of a call."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: arguments[name] for name in names if name in arguments})

    @property
    def is_new(self) -> bool:
        return self.axes is None and self.figure is None


_TICK_WORDS = {
    "": (False, False),
    "none": (False, False),
    "x": (True, False),
    "y": (False, True),
    "xy": (True, True),
    "both": (True, True),
}


def ticks(show_xy_ticks: Any) -> tuple[bool, bool]:
    """Return whether x and y ticks are shown, for (1, 0), [True, False], 1, "x" or None.

    >>> ticks((1, 0)), ticks(True), ticks("y")
    ((True, False), (True, True), (False, True))
    """
    if isinstance(show_xy_ticks, str) and show_xy_ticks.lower() in _TICK_WORDS:
        return _TICK_WORDS[show_xy_ticks.lower()]
    given = np.zeros(1) if show_xy_ticks is None else np.asarray(show_xy_ticks)
    require(given.dtype.kind in "biuf" and given.size in (1, 2))
    return bool(given.flat[0]), bool(given.flat[-1])


_FACTOR = number(0, 100, inside=True)
# Rules for the arguments that the four functions share.
FRAME = {
    "show_xy_ticks": Rule(ticks, "two flags, for x and y, such as (1, 0), or one, or 'x', 'y', 'xy', 'none'"),
    "title_fontsize": number(0, 1000, "points", inside=True),
    "scale_width": _FACTOR,
    "scale_height": _FACTOR,
    "dpi": optional(number(0, 10_000, "pixels per inch", inside=True)),
    "savepath": path_rule,
}


class FigureAndAxes(NamedTuple):
    """The figure and Axes of a plot; unpacks as `fig, axes`."""

    fig: Figure | SubFigure
    axes: Any

    def __repr__(self) -> str:
        width, height = self.fig.bbox.size
        shape = " × ".join(str(length) for length in np.shape(self.axes))
        axes = f"{shape} Axes" if shape else "one Axes"
        return f"(fig: {width:.0f} × {height:.0f} pixels, axes: {axes})"


@dataclass(frozen=True)
class Canvas:
    """The place to draw: an Axes for each panel, or one Axes with a cell for each panel."""

    fig: Figure | SubFigure
    axes: NDArray[np.object_]
    frame: FigureOptions
    count: int
    rows: int
    columns: int

    @property
    def is_cells(self) -> bool:
        return self.axes.size < self.count

    @property
    def is_ours(self) -> bool:
        return self.frame.axes is None

    @property
    def panels(self) -> list[Axes]:
        """The Axes of the panels, in order."""
        return self.axes.ravel().tolist()[: 1 if self.is_cells else self.count]

    @property
    def font_size(self) -> float:
        return 9 if self.rows <= 4 else 7.5

    def is_left(self, panel: int) -> bool:
        """Whether no panel is to the left; each of the caller's Axes stands alone."""
        return not self.is_ours or panel % self.columns == 0

    def is_bottom(self, panel: int) -> bool:
        return not self.is_ours or panel + self.columns >= self.count


@contextmanager
def panels(
    count: int,
    arguments: Mapping[str, Any],
    *,
    size: tuple[float, float] = (3.0, 2.4),
    share_x: bool = True,
    share_y: bool = True,
) -> Iterator[Canvas]:
    """Open `count` panels, each at most `size` inches wide and tall, and save them after drawing.

    `arguments` are those of the function that draws. A new figure is closed if drawing fails.
    """
    frame = FigureOptions.of(arguments)
    path = None if frame.savepath is None else figure_path(frame.savepath)
    rows, columns = grid(count, frame.n_rows)
    if frame.axes is not None:
        axes = _given_axes(frame, count)
    else:
        fig = _figure(frame, rows, columns, size)
        axes = _fresh_axes(fig, count, rows, columns, (share_x, share_y))
    canvas = Canvas(axes.item(0).figure, axes, frame, count, rows, columns)
    try:
        with mpl.rc_context({"text.parse_math": False}):  # a name may contain a dollar sign
            yield canvas
            if path is not None:
                save_figure(canvas.fig.figure, path)
                if frame.is_new and frame.dpi is None:
                    canvas.fig.figure.set_dpi(SCREEN)
    except BaseException:
        if frame.is_new:
            plt.close(canvas.fig.figure)
        raise


def figure_path(savepath: Any) -> Any:
    """Check the path of a figure, in any format that matplotlib writes; the default is .png."""
    known = ("png", *sorted(FigureCanvasBase.get_supported_filetypes()))
    return checked_path(savepath, dict.fromkeys(known), name="savepath", error=FeatureError)


def save_figure(fig: Any, path: Any) -> None:
    """Write a figure either completely or not at all."""
    write(path, partial(fig.savefig, dpi="figure"), error=FeatureError)


def grid(count: int, n_rows: int | None = None) -> tuple[int, int]:
    """Return rows and columns for `count` panels: a little wider than tall, if possible without gaps.

    >>> grid(6), grid(7), grid(16), grid(6, n_rows=6)
    ((2, 3), (2, 4), (4, 4), (6, 1))
    """
    if n_rows is None:
        most = int(count**0.5)
        full = (rows for rows in range(most, 0, -1) if count % rows == 0 and count <= 4 * rows**2)
        n_rows = next(full, most)
    elif n_rows > count:
        warn(f"n_rows={n_rows} exceeds the number of panels: {count} rows are drawn.")
        n_rows = count
    return int(n_rows), -(-count // int(n_rows))


def _figure(frame: FigureOptions, rows: int, columns: int, size: tuple[float, float]) -> Figure | SubFigure:
    if frame.figure is not None:
        if not isinstance(frame.figure, Figure | SubFigure):
            raise FeatureError(
                f"figure= takes a matplotlib Figure or SubFigure, got {type(frame.figure).__name__}. "
                "Pass Axes as axes=."
            )
        return frame.figure
    wide = min(WIDEST, 4.5 + size[0] * columns)
    tall = 0.9 + min(size[1] * rows, max(TALLEST, 0.45 * rows))
    fig = plt.figure(
        figsize=(wide * frame.scale_width, tall * frame.scale_height),
        # Draw in the resolution of the file, so that images have its pixels.
        dpi=frame.dpi or (SCREEN if frame.savepath is None else FILE),
        layout="constrained",
    )
    engine = fig.get_layout_engine()
    if engine is not None:
        engine.set(w_pad=0.04, h_pad=0.05, wspace=0, hspace=0)  # type: ignore[call-arg]
    return fig


def _fresh_axes(
    fig: Figure | SubFigure, count: int, rows: int, columns: int, share: tuple[bool, bool]
) -> NDArray[np.object_]:
    if count > MOST_SUBPLOTS:
        return fig.subplots(squeeze=False)
    axes = fig.subplots(rows, columns, sharex=share[0], sharey=share[1], squeeze=False)
    for unused in axes.flat[count:]:
        unused.set_visible(False)
    return axes


def _given_axes(frame: FigureOptions, count: int) -> NDArray[np.object_]:
    if frame.figure is not None:
        raise FeatureError("Both axes= and figure= were passed. Pass only one of them.")
    axes = frame.axes
    each = leaves(axes.tolist() if isinstance(axes, np.ndarray) else axes)
    if not each or not all(isinstance(one, Axes) for one in each):
        got = describe(axes)
        raise FeatureError(f"axes= takes one matplotlib Axes or an array of them, got {got}.")
    given = np.atleast_2d(axes if isinstance(axes, np.ndarray) else np.array(each, dtype=object))
    if 1 < given.size < count:
        raise FeatureError(
            f"{given.size} Axes were passed for {count} panels. Pass {count}, or one Axes to hold them all."
        )
    return given


def entitle(canvas: Canvas, parts: Sequence[str], names: tuple[str, str]) -> FigureAndAxes:
    """Write the title and the names of x and y; the caller's title is not changed."""
    fig, frame, first = canvas.fig, canvas.frame, canvas.panels[0]
    title = frame.show_title
    if not isinstance(title, str):
        title = wrap(parts, fig.bbox.width / fig.dpi, frame.title_fontsize) if title else ""
    title = printable(title)
    x_name, y_name = (name if is_on else "" for name, is_on in zip(names, frame.show_xy_ticks, strict=True))
    if canvas.is_ours and len(canvas.panels) > 1:
        # An empty name would still take up space.
        for label, text in ((fig.supxlabel, x_name), (fig.supylabel, y_name)):
            if text:
                label(text, fontsize=10, color=INK)
    else:
        for ax in canvas.panels:
            ax.set_xlabel(x_name, fontsize=10, color=INK)
            ax.set_ylabel(y_name, fontsize=10, color=INK)
    if canvas.is_ours and title:
        fig.suptitle(title, fontsize=frame.title_fontsize, color=INK)
    elif title:
        panel_words = first.get_title(loc="left")
        title = f"{title}\n{panel_words}" if panel_words else title
        first.set_title(title, loc="left", fontsize=frame.title_fontsize, color=INK)
    return FigureAndAxes(fig, canvas.axes)
