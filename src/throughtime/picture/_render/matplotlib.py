"""Plots drawn with matplotlib, without pyplot: nothing is registered or shown."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Annotation
from matplotlib.transforms import ScaledTranslation
from PIL.Image import fromarray

from throughtime._errors import PictureError
from throughtime.picture import Axis, Image, Panel, Picture, Rectangles
from throughtime.picture._drawing.theme import Theme
from throughtime.picture._render.dark import on_paper
from throughtime.picture._render.glyphs import drawable
from throughtime.picture._render.keys import Key, bars, keys
from throughtime.picture._render.matplotlib_layout import hide_overlaps, lay_out, stacked, wrapped
from throughtime.picture._render.matplotlib_marks import Pixels, draw_image, draw_mark

_COMMENT = re.compile(rb"<!--.*?-->\n?", re.DOTALL)


@contextmanager
def settings(theme: Theme, fonts: list[str]) -> Iterator[None]:
    """Use only the settings of the theme, and restore those of the user afterwards."""
    changed = {
        "font.family": fonts,
        "font.size": theme.size,
        "text.parse_math": False,  # a name may contain a dollar sign
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", *_both("color")), theme.ink),
        **dict.fromkeys(("axes.linewidth", *_both("major.width")), 0.6),
        **dict.fromkeys(_both("major.size"), 3.0),
        "hatch.linewidth": 0.5,
        **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), theme.paper),
        "svg.hashsalt": "throughtime",
    }
    # Without its backend: setting that would load pyplot.
    usual: dict[Any, Any] = {
        name: value for name, value in mpl.rcParamsDefault.items() if not name.startswith("backend")
    }
    with mpl.rc_context():
        mpl.rcParams.update(usual | changed)
        yield


def _both(name: str) -> tuple[str, str]:
    return f"xtick.{name}", f"ytick.{name}"


def draw(picture: Picture, theme: Theme) -> Figure:
    """Draw a plot; the figure belongs to the caller."""
    picture, fonts = drawable(picture, theme)
    with settings(theme, fonts):
        return _draw(picture, theme)


def encoded(picture: Picture, theme: Theme, kind: str = "png") -> bytes:
    """Return the bytes of a plot as png, svg or pdf."""
    target = io.BytesIO()
    picture, fonts = drawable(picture, theme)
    with settings(theme, fonts):
        figure = _draw(picture, theme)
        if kind == "png":
            _write_png(figure, target)
        else:
            # Without a date the same plot is the same file.
            undated: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
            figure.savefig(target, format=kind, dpi=theme.dpi, metadata=undated[kind])
    # matplotlib repeats each text of an svg in a comment.
    return _COMMENT.sub(b"", target.getvalue()) if kind == "svg" else target.getvalue()


def _write_png(figure: Figure, target: io.BytesIO) -> None:
    """Draw once, whereas `savefig` draws twice, and omit an alpha that is 1 everywhere."""
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())
    if pixels[..., 3].min() == 255:
        pixels = np.ascontiguousarray(pixels[..., :3])
    # Levels above 3 take up to four times as long, for lines in larger files.
    fromarray(pixels).save(target, "png", compress_level=2, dpi=(figure.dpi, figure.dpi))


def _draw(picture: Picture, theme: Theme) -> Figure:
    """Draw with as many panels per row as the theme's width allows."""
    picture = on_paper(picture, theme)
    while True:
        try:
            return _drawn(picture, theme)
        except PictureError:
            if picture.columns == 1:
                raise
            picture = stacked(picture)


def _drawn(picture: Picture, theme: Theme) -> Figure:
    size = _size(picture, theme)
    figure = Figure(figsize=size, layout="constrained", dpi=theme.dpi)
    axes = figure.subplots(
        picture.rows,
        picture.columns,
        squeeze=False,
        sharex="x" in picture.linked,
        sharey="y" in picture.linked,
        gridspec_kw={"height_ratios": picture.heights} if picture.heights else None,
    )
    for ax, panel in zip(axes.flat, picture.panels, strict=False):
        _draw_panel(ax, panel, picture.shown, theme)
    for ax in axes.flat[len(picture.panels) :]:
        ax.remove()
    if picture.linked:
        _inner_labels_off(axes, picture)
    _draw_title(figure, picture, theme)
    _draw_bars(figure, axes, picture)
    _draw_keys(figure, picture, theme)
    if theme.width is not None and theme.width < picture.width:
        lay_out(figure, axes.flat[: len(picture.panels)], picture, theme)
    layout: Any = figure.get_layout_engine()
    layout.execute(figure)
    _draw_images(axes, picture, theme)
    hide_overlaps(figure)
    figure.set_layout_engine("none")  # a second layout could change the axes by a pixel and lose a spike
    return figure


def _draw_images(axes: Any, picture: Picture, theme: Theme) -> None:
    """Draw the images last: the number of their pixels depends on the layout."""
    for ax, panel in zip(axes.flat, picture.panels, strict=False):
        box = ax.get_window_extent()
        for image in panel.of(Image):
            draw_image(ax, image, picture.shown, theme, Pixels(box.width, box.height, panel.span))


def _size(picture: Picture, theme: Theme) -> tuple[float, float]:
    """Return the theme's width, and a height that changes half as much, at most as the texts."""
    factor = theme.width / picture.width if theme.width else 1.0
    return picture.width * factor, picture.height * max(factor**0.5, min(1.0, theme.weight))


def _draw_panel(ax: Any, panel: Panel, frame: int, theme: Theme) -> None:
    for mark in panel.marks:
        draw_mark(ax, mark, frame, theme)
    for artist in (*ax.lines, *ax.collections, *ax.texts):
        artist.set_in_layout(False)  # measuring them is slow, and they lie inside the axes
    for axis, spec in ((ax.xaxis, panel.x), (ax.yaxis, panel.y)):
        _dress(axis, spec, counts=spec.counts or bool(panel.of(Image)))
    if panel.title:
        # Without a height matplotlib computes one by measuring all ticks once more.
        ax.set_title(panel.title, loc="left", fontsize=theme.size, pad=4, y=1.0)
    ax.spines[["top", "right"] if panel.framed else ["top", "right", "left", "bottom"]].set_visible(False)
    if not panel.framed:
        ax.tick_params(length=0)
    if panel.equal:
        ax.set_aspect("equal")
    if panel.grid:
        ax.grid(color=theme.faint, linewidth=0.5)
        ax.set_axisbelow(True)
    if any(getattr(mark, "label", "") for mark in panel.marks):
        ax.legend(edgecolor="none", fontsize=0.85 * theme.size, **_place(ax, panel, theme))


def _place(ax: Any, panel: Panel, theme: Theme) -> dict[str, Any]:
    """Place a legend: below a circle and its axis, under bars, otherwise in free space."""
    if panel.equal:
        lower = ScaledTranslation(0, -3.2 * theme.size / 72, ax.figure.dpi_scale_trans)
        anchor = {"bbox_to_anchor": (0.5, 0.0), "bbox_transform": ax.transAxes + lower}
        return {"loc": "upper center", "ncols": 2, **anchor}
    return {"loc": "lower right" if panel.of(Rectangles) else "best"}


def _dress(axis: Any, spec: Axis, *, counts: bool) -> None:
    axis.set_label_text(spec.label)
    name = axis.axis_name
    if spec.limits is not None:
        low, high = spec.limits[::-1] if spec.reversed else spec.limits
        axis.axes.set(**{f"{name}lim": (low, high)})
    elif spec.reversed:
        getattr(axis.axes, f"invert_{name}axis")()
    if spec.ticks is not None:
        axis.set_ticks([at for at, _ in spec.ticks], labels=[word for _, word in spec.ticks])
    elif counts:
        axis.set_major_locator(
            mpl.ticker.MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
        )


def _inner_labels_off(axes: Any, picture: Picture) -> None:
    """Label shared axes once, at the edge of the grid."""
    for place, ax in enumerate(axes.flat[: len(picture.panels)]):
        row, column = divmod(place, picture.columns)
        if "x" in picture.linked and (row + 1) * picture.columns + column < len(picture.panels):
            ax.set_xlabel("")
        elif "x" in picture.linked:
            ax.xaxis.set_tick_params(labelbottom=True)
        if "y" in picture.linked and column:
            ax.set_ylabel("")


def _draw_title(figure: Figure, picture: Picture, theme: Theme) -> None:
    frame = "" if picture.titles else picture.frame_words(picture.shown)
    below = filter(None, (picture.subtitle, frame))
    left, sizes = 0.01, (1.25 * theme.size, theme.size)
    # matplotlib's own wrapping reads mathtext, whatever the settings.
    width = (0.98 - left) * 72 * figure.get_figwidth()
    title, subtitle = (
        [line for each in words.split("\n") if each for line in wrapped(each, width, size)]
        for words, size in zip((picture.title, " · ".join(below)), sizes, strict=True)
    )
    if title or subtitle:
        # Empty lines reserve room for the subtitle, which is attached to the title.
        head = figure.suptitle(
            "\n".join([*title, *[" "] * len(subtitle)]), x=left, ha="left", fontsize=sizes[0]
        )
        style: dict[str, Any] = {"fontsize": sizes[1], "color": theme.soft, "va": "bottom"}
        hung = Annotation("\n".join(subtitle), (0, 0), xycoords=head, annotation_clip=False, **style)
        hung.set_in_layout(False)
        figure.add_artist(hung)


def _draw_bars(figure: Figure, axes: Any, picture: Picture) -> None:
    """Draw one bar for all panels with the same colours."""
    places: dict[int, list[Any]] = {}
    images: dict[int, Image] = {}
    for ax, panel in zip(axes.flat, picture.panels, strict=False):
        for image in bars(panel):
            places.setdefault(id(image.colors), []).append(ax)
            images[id(image.colors)] = image
    for which, image in images.items():
        colors = image.colors
        mappable = ScalarMappable(Normalize(0, 1), ListedColormap(list(colors.palette)))
        everywhere = len(places[which]) == len(picture.panels)
        width = 0.16 / picture.width * 9.0
        bar = figure.colorbar(
            mappable,
            ax=list(axes.flat) if everywhere and len(picture.panels) == axes.size else places[which],
            pad=0.015,
            fraction=0.05,
            aspect=max(12.0, picture.height / picture.rows * len(places[which]) / width / picture.columns),
        )
        bar.outline.set_linewidth(0.4)
        bar.set_label(colors.label)
        ticks = colors.scale.ticks()
        bar.set_ticks([at for at, _ in ticks], labels=[word for _, word in ticks])


def _draw_keys(figure: Figure, picture: Picture, theme: Theme) -> None:
    listed = keys(picture)
    if listed:
        figure.legend(
            handles=[_handle(key, theme) for key in listed],
            loc="outside lower left",
            ncols=max(1, min(len(listed), int(picture.width / 1.9))),
            frameon=False,
            fontsize=0.85 * theme.size,
            handlelength=1.2,
            handleheight=1.0,
            columnspacing=1.4,
        )


def _handle(key: Key, theme: Theme) -> Any:
    if key.marker:
        fill: Any = {"markerfacecolor": key.color, "markeredgecolor": theme.ink}
        return Line2D([], [], linestyle="none", marker=key.marker, label=key.words, **fill)
    hatch = "//////" if key.hatched else None
    edge = "#b0b0b0" if key.hatched else "#777777"
    return Patch(facecolor=key.color, edgecolor=edge, linewidth=0.5, hatch=hatch, label=key.words)
