"""Draws each mark on a Bokeh figure."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, CustomJSHover, HoverTool, LinearColorMapper

from throughtime._common.text.printable import printable
from throughtime.picture import Band, Dots, Image, Line, Panel, Picture, Rectangles, Text
from throughtime.picture._drawing.colors import SPECIALS, TOP, WIDTH, Colors, lowest_code
from throughtime.picture._drawing.pooling import pooled_codes
from throughtime.picture._drawing.scale import Array
from throughtime.picture._drawing.theme import Theme
from throughtime.picture._render.bokeh_text import template_text
from throughtime.picture._render.keys import lone, masked_boxes, nonfinite, runs

MOST_CELLS = 2_000_000  # of all images of a plot, over all frames
MOST_HOVERED = 60_000  # points of the lines of a panel that a hover describes
HATCHED = {"hatch_pattern": "/", "hatch_color": "#a0a0a0", "hatch_scale": 8, "hatch_weight": 0.6}
_MARKERS = {"o": "circle", "X": "x", "^": "triangle", "v": "inverted_triangle", "x": "x"}
_BROKEN = {"nan": "x", "positive_infinity": "triangle", "negative_infinity": "inverted_triangle"}

_NUMBER = "return Number.isFinite(value) ? String(Number(value.toPrecision(4))) : String(value)"


@dataclass
class Frames:
    """Sources that sliders exchange, with all frames and with the frame shown; the factor of shrinking."""

    shrunk: float = 1.0
    stores: list[Any] = field(default_factory=list)
    shown: list[Any] = field(default_factory=list)
    own: Any = None  # the button for separate scales, and what it changes
    images: list[Any] = field(default_factory=list)
    bars: list[Any] = field(default_factory=list)

    def add(self, everything: ColumnDataSource, shown: ColumnDataSource) -> None:
        """Add a pair of sources."""
        self.stores.append(everything)
        self.shown.append(shown)


def draw_marks(made: Any, panel: Panel, frame: int, theme: Theme, frames: Frames) -> None:
    """Draw the marks of a panel; images with the same colours are one glyph."""
    groups: dict[int, list[Image]] = {}
    for image in panel.of(Image):
        groups.setdefault(id(image.colors), []).append(image)
    for images in groups.values():
        _draw_images(made, panel, images, frame, frames)
    hovers = sum(line.y.size for line in panel.of(Line)) <= MOST_HOVERED
    for mark in panel.marks:
        match mark:
            case Image():
                _draw_over_image(made, mark, theme)
            case Line():
                _draw_line(made, mark, frame, frames, hovers=hovers)
            case Band():
                _draw_band(made, mark)
            case Rectangles():
                label = {"legend_label": mark.label} if mark.label else {}
                _draw_boxes(made, mark.boxes, mark.fill, mark.edge, fill_alpha=mark.alpha, **label)
            case Dots():
                _draw_dots(made, mark)
            case Text():
                _draw_text(made, mark, theme)


def _draw_images(made: Any, panel: Panel, images: list[Image], frame: int, frames: Frames) -> None:
    codes = [_codes(image, frames.shrunk) for image in images]
    boxes = np.array([(*image.x, *image.y) for image in images])
    source = ColumnDataSource(
        {
            "image": [each[min(frame, len(each) - 1)] for each in codes],
            "x": boxes[:, 0],
            "y": boxes[:, 2],
            "dw": boxes[:, 1] - boxes[:, 0],
            "dh": boxes[:, 3] - boxes[:, 2],
            "name": [image.name for image in images],
        }
    )
    colors = images[0].colors
    mapper = LinearColorMapper(
        palette=list(colors.listed()),
        low=lowest_code(),
        high=TOP + 1,
        low_color="#00000000",
        tags=turning(colors),
    )
    glyph = made.image("image", x="x", y="y", dw="dw", dh="dh", source=source, color_mapper=mapper)
    if len(codes[0]) > 1:
        count = max(map(len, codes))
        everything = [each[min(number, len(each) - 1)] for number in range(count) for each in codes]
        frames.add(ColumnDataSource({"image": everything}), source)
    if frames.own is not None and colors.scale.kind == "log10":
        frames.images.append(source)
    made.add_tools(_image_hover(panel, images, source, glyph, frames.own))


def turning(colors: Colors) -> list[str]:
    """Tag colours that are reversed on a dark page."""
    return ["magnitude"] if colors.is_magnitude else []


def shrinking(picture: Picture, most_cells: float) -> float:
    """Return the factor, at most 1, by which each axis of the images has to shrink."""
    cells = sum(image.values.size for image in picture.marks(Image))
    return float(min(1.0, (most_cells / max(1, cells)) ** 0.5))


def _codes(image: Image, factor: float) -> list[Array]:
    """Return the codes of each frame; large images are pooled by their largest magnitude."""
    most = [max(1, int(factor * size)) for size in image.values.shape[-2:]]
    frames = map(image.frame, range(image.frames))
    return [np.ascontiguousarray(pooled_codes(image.colors, *frame, *most)) for frame in frames]


def _image_hover(
    panel: Panel, images: list[Image], source: ColumnDataSource, glyph: Any, own: Any
) -> HoverTool:
    first = images[0]
    rows, columns = first.values.shape[-2:]
    place = {
        axis: CustomJSHover(
            args={"source": source, "axis": axis, "count": count, "labels": _words(labels)},
            code=template_text("hover_place.js"),
        )
        for axis, count, labels in (("x", columns, first.columns), ("y", rows, first.rows))
    }
    named = [("", "@name")] if any(image.name for image in images) else []
    words = [
        (panel.x.label or "column", "$x{custom}"),
        (panel.y.label.partition(",")[0] or "row", "$y{custom}"),
    ]
    value = (first.colors.label.partition(",")[0] or "value", "@image{custom}")
    formatters: dict[str, Any] = {"$x": place["x"], "$y": place["y"], "@image": decoder(first.colors, own)}
    return HoverTool(renderers=[glyph], tooltips=[*named, *words, value], formatters=formatters)


def _words(labels: Array | None) -> list[str]:
    return [] if labels is None else [printable(str(label)) for label in labels]


def decoder(colors: Colors, own: Any = None) -> CustomJSHover:
    """Convert a code to its value, with a precision of 1/32,000 of the scale, or to its meaning."""
    scale = colors.scale
    digits = int(np.clip(np.ceil(-np.log10((scale.high - scale.low) / TOP)) - 1, 0, 12))
    arguments = {
        "own": own,
        "kind": scale.kind,
        "low": scale.low,
        "high": scale.high,
        "top": TOP,
        "width": WIDTH,
        "digits": digits,
        "words": [colors.word(name) for name in SPECIALS],
    }
    return CustomJSHover(args=arguments, code=template_text("hover_value.js"))


def _draw_over_image(made: Any, image: Image, theme: Theme) -> None:
    """Hatch masked cells and mark values that are not finite; with a slider only the colours show them."""
    if image.frames > 1:
        return
    if len(boxes := masked_boxes(image, 0)):
        _draw_boxes(made, boxes, None, None, **HATCHED)
    for kind, x, y in nonfinite(image, 0):
        color = image.colors.color_of(kind)
        made.scatter(x, y, marker=_BROKEN[kind], size=8, fill_color=color, line_color=theme.ink)


def _draw_line(made: Any, line: Line, frame: int, frames: Frames, *, hovers: bool) -> None:
    y = line.y if line.y.ndim == 1 else line.y[frame]
    columns = {"x": _small(line.x), "y": _small(y)}
    if hovers:
        columns |= _columns(line.details)
    source = ColumnDataSource(columns)
    style: dict[str, Any] = {"legend_label": line.label} if line.label else {}
    style |= {"color": line.color, "alpha": line.alpha}
    if (points := lone(y)).size:
        made.scatter(line.x[points], y[points], size=3 * max(1.0, line.width), **style)
    dash = "dashed" if line.dashed else "solid"
    glyph = made.line("x", "y", source=source, line_width=line.width, line_dash=dash, **style)
    if line.y.ndim == 2:
        frames.add(ColumnDataSource({"y": [_small(each) for each in line.y]}), source)
    if hovers and line.details:
        made.add_tools(_details_hover(glyph, [name for name, _ in line.details]))


def _small(values: Array) -> Array:
    values = np.asarray(values)
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return values.astype(np.float32)
    return values


def _columns(details: tuple[tuple[str, Array], ...]) -> dict[str, Array]:
    """Return the columns of a hover by place: a tooltip could read a name as a field."""
    return {f"detail_{place}": _small(values) for place, (_, values) in enumerate(details)}


def _details_hover(glyph: Any, names: list[str]) -> HoverTool:
    fields = {f"@detail_{place}": name for place, name in enumerate(names)}
    measured = [column for column, name in fields.items() if name in ("value", "share")]
    tooltips = [(name, column + "{custom}" * (column in measured)) for column, name in fields.items()]
    formatters: dict[str, Any] = {column: CustomJSHover(code=_NUMBER) for column in measured}
    return HoverTool(renderers=[glyph], tooltips=tooltips, formatters=formatters)


def _draw_band(made: Any, band: Band) -> None:
    """Draw one patch for each finite run: a filled area would cover gaps."""
    finite = np.isfinite(band.x) & np.isfinite(band.low) & np.isfinite(band.high)
    ends = runs(finite)
    around = [np.r_[band.x[a:b], band.x[a:b][::-1]].astype(np.float32) for a, b in ends]
    along = [np.r_[band.low[a:b], band.high[a:b][::-1]].astype(np.float32) for a, b in ends]
    style = {"legend_label": band.label} if band.label else {}
    made.patches(around, along, fill_color=band.color, fill_alpha=band.alpha, line_color=None, **style)


def _draw_boxes(made: Any, boxes: Array, fill: str | None, edge: str | None, **style: Any) -> None:
    left, bottom, right, top = boxes.T
    place = {"left": left, "bottom": bottom, "right": right, "top": top}
    made.quad(**place, fill_color=fill, line_color=edge, line_width=0.6, **style)


def _draw_dots(made: Any, dots: Dots) -> None:
    source = ColumnDataSource({"x": dots.x, "y": dots.y, **_columns(dots.details)})
    marker = _MARKERS[dots.marker]
    glyph = made.scatter(
        "x",
        "y",
        source=source,
        size=1.3 * dots.size,
        marker=marker,
        fill_color=dots.color,
        fill_alpha=dots.alpha,
        line_color=dots.color if marker == "x" else None,
        line_width=2,
        **({"legend_label": dots.label} if dots.label else {}),
    )
    glyph.glyph.tags = ["magnitude"]  # on a dark page dots are as bright as lines
    if dots.details:
        made.add_tools(_details_hover(glyph, [name for name, _ in dots.details]))


def _draw_text(made: Any, text: Text, theme: Theme) -> None:
    along, _, across = text.anchor.partition(" ")
    made.text(
        text.x,
        text.y,
        list(text.words),
        text_font_size=f"{text.size * theme.size}pt",
        text_font={"value": f"{theme.font}, Helvetica, sans-serif"},
        text_color=text.color or theme.ink,
        text_baseline=along,
        text_align=across or "center",
    )
