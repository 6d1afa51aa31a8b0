"""Draws each mark on matplotlib axes."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgba_array
from matplotlib.patches import Rectangle

from throughtime.picture import Band, Dots, Image, Line, Mark, Rectangles, Text
from throughtime.picture._drawing.colors import SPECIALS, WIDTH, Colors, lowest_code
from throughtime.picture._drawing.pooling import pooled_codes
from throughtime.picture._drawing.scale import Array
from throughtime.picture._drawing.theme import Theme
from throughtime.picture._render.keys import MARKERS, lone, masked_boxes, nonfinite

MANY_POINTS = 20_000  # of a line; svg and pdf contain longer ones as pixels
HATCH = "#b0b0b0"


@dataclass(frozen=True)
class Pixels:
    """The pixels of a panel, and the span of its axes."""

    wide: float
    high: float
    span: tuple[float, float]

    def of(self, image: Image) -> tuple[int, int]:
        """Return the pixels of an image, (rows, columns)."""
        across, along = abs(image.x[1] - image.x[0]), abs(image.y[1] - image.y[0])
        shares = min(1.0, across / self.span[0]), min(1.0, along / self.span[1])
        return max(1, int(self.high * shares[1])), max(1, int(self.wide * shares[0]))


def draw_mark(ax: Any, mark: Mark, frame: int, theme: Theme) -> None:
    """Draw one mark of the frame shown, unless it is an image."""
    match mark:
        case Line():
            _draw_line(ax, mark, frame, theme)
        case Band():
            style = {"color": mark.color, "alpha": mark.alpha, "linewidth": 0}
            many = mark.x.size > MANY_POINTS
            ax.fill_between(mark.x, mark.low, mark.high, label=mark.label or None, rasterized=many, **style)
        case Rectangles():
            _draw_boxes(ax, mark.boxes, mark.fill, mark.edge, hatched=mark.hatched, alpha=mark.alpha)
            if mark.label:
                # Without a size, only for the legend.
                face, edge = mark.fill or "none", mark.edge
                ax.add_patch(Rectangle((0, 0), 0, 0, facecolor=face, edgecolor=edge, label=mark.label))
        case Dots():
            _draw_dots(ax, mark, theme)
        case Text():
            _draw_text(ax, mark, theme)


def _draw_line(ax: Any, line: Line, frame: int, theme: Theme) -> None:
    y = line.y[frame] if line.y.ndim == 2 else line.y
    points = lone(y)
    ax.plot(
        line.x,
        y,
        color=line.color,
        linewidth=line.width * theme.weight,
        alpha=line.alpha,
        linestyle="--" if line.dashed else "-",
        label=line.label or None,
        rasterized=line.x.size > MANY_POINTS,
        marker="o" if points.size else None,
        markersize=2.5 * max(1.0, line.width) * theme.weight,
        markevery=points.tolist(),
        # Rounding corners takes time and is invisible with so many points.
        solid_joinstyle="round" if line.x.size <= MANY_POINTS else "bevel",
    )


def draw_image(ax: Any, image: Image, frame: int, theme: Theme, pixels: Pixels) -> None:
    """Draw one image, shrunk to its pixels."""
    values, valid = image.frame(frame)
    ax.imshow(
        _pixels(values, valid, image.colors, pixels.of(image)),
        extent=(*image.x, *image.y),
        origin="lower",
        interpolation="nearest",
        aspect=ax.get_aspect(),
    )
    if len(boxes := masked_boxes(image, frame)):
        _draw_boxes(ax, boxes, None, HATCH, hatched=True)
    for kind, x, y in nonfinite(image, frame):
        mark_nonfinite(ax, kind, x, y, colors=(image.colors.color_of(kind), theme.ink))


def mark_nonfinite(
    ax: Any, kind: str, x: Array, y: Array, size: float = 26, colors: tuple[str, str] | None = None
) -> Any:
    """Mark values that are not finite in the same way in every plot; return the artist."""
    color, ink = colors or (SPECIALS[kind], Theme.ink)
    style: dict[str, Any] = {"s": size, "linewidths": 0.027 * size, "zorder": 5}
    return ax.scatter(x, y, marker=MARKERS[kind], c=color, edgecolors=ink, **style)


def _pixels(values: Array, valid: Array | None, colors: Colors, most: tuple[int, int]) -> Array:
    """Shrink to pixels and look up the colours, (row, column, RGBA)."""
    codes = pooled_codes(colors, values, valid, *most)
    return np.asarray(_table(colors.listed())[(codes.astype(np.int32) - lowest_code()) // WIDTH])


@lru_cache(maxsize=8)
def _table(colors: tuple[str, ...]) -> Array:
    """Convert a list of colours once: a plot may have an image for each of 64 samples."""
    return np.asarray((255 * to_rgba_array(colors)).astype(np.uint8))


def _draw_boxes(
    ax: Any, boxes: Array, fill: str | None, edge: str | None, *, hatched: bool = False, alpha: float = 1.0
) -> None:
    patches = [Rectangle((a, b), c - a, d - b) for a, b, c, d in boxes]
    ax.add_collection(
        PatchCollection(
            patches,
            facecolor=fill or "none",
            edgecolor=edge or "none",
            linewidth=0 if hatched else 0.6,
            hatch="//////" if hatched else None,
            alpha=None if alpha == 1 else alpha,
        ),
        autolim=False,
    )


def _draw_dots(ax: Any, dots: Dots, theme: Theme) -> None:
    ax.scatter(
        dots.x,
        dots.y,
        s=(dots.size * theme.weight) ** 2,
        marker=dots.marker,
        color=dots.color,
        alpha=dots.alpha,
        linewidths=0,
        label=dots.label or None,
        zorder=3,
        rasterized=dots.x.size > MANY_POINTS,
    )


def _draw_text(ax: Any, text: Text, theme: Theme) -> None:
    along, _, across = text.anchor.partition(" ")
    for x, y, words in zip(text.x, text.y, text.words, strict=True):
        ax.text(
            x,
            y,
            words,
            fontsize=text.size * theme.size,
            color=text.color or theme.ink,
            ha=across or "center",
            va="center" if along == "middle" else along,
            clip_on=False,
        )
