"""Plots drawn with Bokeh, with zoom, hover and sliders; no global state is changed."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from bokeh.layouts import column, gridplot
from bokeh.models import (
    AllLabels,
    BasicTicker,
    CustomJS,
    CustomJSTickFormatter,
    FixedTicker,
    LinearColorMapper,
    Range1d,
)
from bokeh.models.annotations import ColorBar, Legend, LegendItem
from bokeh.models.widgets import Div, Slider
from bokeh.plotting import figure

from throughtime.picture import Axis, Image, Panel, Picture
from throughtime.picture._drawing.theme import Theme
from throughtime.picture._render import own_scale
from throughtime.picture._render.bokeh_marks import MOST_CELLS, Frames, draw_marks, shrinking, turning
from throughtime.picture._render.bokeh_text import template_text, without_tex
from throughtime.picture._render.dark import on_paper
from throughtime.picture._render.keys import Key, bars, keys

PIXELS_AN_INCH = 96
NARROW = 260  # pixels of a figure beside others; on a narrower page they are stacked
TOOLBAR = 40
LOW = 210  # pixels of a figure that has room for only a few ticks
TOOLS = "pan,wheel_zoom,box_zoom,reset,save"
_MARKERS = {"X": "square_x", "^": "triangle", "v": "inverted_triangle"}


@dataclass
class Ranges:
    """Axes that move together: those with the same label and limits, in one plot or several."""

    made: dict[tuple[Any, ...], Range1d] = field(default_factory=dict)

    def of(self, name: str, axis: Axis) -> Range1d | None:
        """Return the range of an axis; None if the figure is to choose it."""
        if axis.limits is None:
            return None
        key = (name, axis.label, axis.limits, axis.reversed)
        return self.made.setdefault(key, _range(axis))


def draw(
    picture: Picture,
    theme: Theme,
    *,
    titled: bool = True,
    ranges: Ranges | None = None,
    most_cells: float = MOST_CELLS,
) -> Any:
    """Draw a plot as a layout of Bokeh figures, with its sliders on top.

    With `ranges` its horizontal axes move with those of other plots. Images are shrunk if all their frames
    have more than `most_cells` values.
    """
    picture = on_paper(picture, theme)
    frames = Frames(shrunk=shrinking(picture, most_cells))
    frames.own = own_scale.button(picture)
    shared = ranges or Ranges()
    figures = [_figure(picture, place, shared, theme, frames) for place in range(len(picture.panels))]
    listed = keys(picture)
    if frames.shrunk < 1:
        words = f"shrunk to {100 * frames.shrunk:.0f} % by the largest magnitude"
        listed.append(Key(theme.paper, words))
    _add_keys(figures[-picture.columns :], listed, theme)
    # A circle stays round if the page does not stretch it.
    is_fixed = any(panel.equal for panel in picture.panels)
    grid = gridplot(
        [*_rows(figures, picture.columns)],
        toolbar_location="right",
        sizing_mode=None if is_fixed else "stretch_width",
        toolbar_options={"logo": None},
    )
    widest = 130 + _side(picture) if is_fixed else NARROW
    own_scale.follow(frames.own, "active", frames)
    headings = [*_headings(picture, theme)] if titled else []
    layout = column(
        *headings,
        *_sliders(picture, frames, headings[0] if headings else None),
        *filter(None, [frames.own]),
        grid,
        min_width=picture.columns * widest + TOOLBAR if picture.columns > 1 else None,
        sizing_mode="stretch_width",
    )
    for model in layout.references():
        without_tex(model)
    return layout


def _sliders(picture: Picture, frames: Frames, heading: Any) -> list[Any]:
    """Make the sliders that select the frame, and its title if frames have titles."""
    places = map(int, np.unravel_index(picture.shown, [len(each.words) for each in picture.sliders] or [1]))
    made = [
        Slider(
            start=0,
            end=len(slider.words) - 1,
            value=place,
            step=1,
            title=slider.name,
            format=CustomJSTickFormatter(args={"words": list(slider.words)}, code="return words[tick]"),
            name=slider.name,
            tooltips=False,  # Bokeh sets them as HTML; the title has the same word
            sizing_mode="stretch_width",
        )
        for slider, place in zip(picture.sliders, places, strict=False)
        if len(slider.words) > 1
    ]
    several = [slider for slider in picture.sliders if len(slider.words) > 1]
    arguments = {
        "sliders": made,
        "sizes": [len(slider.words) for slider in several],
        "stores": frames.stores,
        "shownIn": frames.shown,
        "whole": {"y": True},
        "titles": list(picture.titles),
        "heading": heading if picture.titles else None,
    }
    for slider in made:
        slider.js_on_change("value", CustomJS(args=arguments, code=template_text("slide.js")))
        own_scale.follow(slider, "value", frames)
    return made


def _headings(picture: Picture, theme: Theme) -> Iterator[Any]:
    for words, size in ((picture.title, 1.25), (picture.subtitle, 1.0)):
        style: dict[str, str | None] = {"font": f"{size * theme.size}pt {_font(theme)}", "color": theme.ink}
        if words:
            yield Div(text=words, render_as_text=True, styles=style, sizing_mode="stretch_width")


def _font(theme: Theme) -> str:
    return f"{theme.font}, Helvetica, sans-serif"


def _range(axis: Axis) -> Range1d:
    low, high = axis.limits or (0.0, 1.0)
    start, end = (high, low) if axis.reversed else (low, high)
    margin = high - low
    return Range1d(start=start, end=end, bounds=(low - margin, high + margin))


def _figure(picture: Picture, place: int, ranges: Ranges, theme: Theme, frames: Frames) -> Any:
    panel, own = picture.panels[place], Ranges()
    found = {
        f"{name}_range": (ranges if name in picture.linked else own).of(name, getattr(panel, name))
        for name in "xy"
    }
    options: dict[str, Any] = {name: one for name, one in found.items() if one is not None}
    height = picture.height * PIXELS_AN_INCH
    if panel.equal:
        options |= {"frame_width": _side(picture), "frame_height": _side(picture)}
    shares = picture.heights or (1.0,) * picture.rows
    made = figure(
        width=int(picture.width * PIXELS_AN_INCH / picture.columns),
        height=max(120, int(height * shares[place // picture.columns] / sum(shares))),
        tools=TOOLS,
        active_scroll=None,
        title=panel.title or None,
        **options,
    )
    draw_marks(made, panel, picture.shown, theme, frames)
    _dress(made, panel, theme)
    for image in bars(panel):
        _add_bar(made, image.colors, theme)
        if frames.own is not None and image.colors.scale.kind == "log10":
            both = made.right[-1], _add_bar(made, own_scale.relative(image.colors), theme)
            both[1].visible = False
            frames.bars.append(both)
    return made


def _rows(figures: list[Any], columns: int) -> Iterator[list[Any]]:
    """Split figures into rows, each as high as its highest: a long legend moves all frames of a row down."""
    for start in range(0, len(figures), columns):
        row = figures[start : start + columns]
        for each in row:
            each.height = max(other.height for other in row)
        yield row


def _side(picture: Picture) -> int:
    """Return the side of a square panel in pixels; a usual page has room for three."""
    return int((0.66 if picture.columns < 3 else 0.42) * picture.height * PIXELS_AN_INCH)


def _dress(made: Any, panel: Panel, theme: Theme) -> None:
    dress(made, theme, framed=panel.framed)
    made.grid.visible = panel.grid
    for axes, axis in ((made.xaxis, panel.x), (made.yaxis, panel.y)):
        axes.axis_label = axis.label or None
        if axis.ticks is not None:
            axes.ticker = FixedTicker(ticks=[at for at, _ in axis.ticks])
            axes.major_label_overrides = dict(axis.ticks)
        elif axis.counts or panel.of(Image):
            axes.ticker = BasicTicker(min_interval=1)
        elif axis is panel.y and made.height <= LOW:
            axes.ticker = BasicTicker(desired_num_ticks=3)
    if made.legend:
        _place_legend(made, theme)


def dress(made: Any, theme: Theme, *, framed: bool = True) -> None:
    """Set the colours and fonts of a theme."""
    made.toolbar.logo = None
    made.background_fill_color = made.border_fill_color = theme.paper
    made.outline_line_color = None
    made.grid.grid_line_color = theme.faint
    line = theme.ink if framed else None
    made.axis.axis_line_color = made.axis.major_tick_line_color = line
    made.axis.minor_tick_line_color = None
    made.axis.axis_label_text_font_style = "normal"
    for part in ("axis_label", "major_label"):
        setattr(made.axis, f"{part}_text_color", theme.ink)
        setattr(made.axis, f"{part}_text_font", _font(theme))
        setattr(made.axis, f"{part}_text_font_size", f"{theme.size}pt")
    if made.title is not None:
        made.title.text_color, made.title.text_font_style = theme.ink, "normal"
        made.title.text_font, made.title.text_font_size = _font(theme), f"{theme.size}pt"


def _place_legend(made: Any, theme: Theme) -> None:
    """Move the legend above the panel, where it hides nothing; a click hides a curve."""
    legend = made.legend[0]
    made.center.remove(legend)
    made.add_layout(legend, "above")
    _style_legend(legend, theme)
    longest = max(len(item.label.value) for item in legend.items)
    legend.ncols = max(1, min(len(legend.items), int(made.width / (7 * longest + 40))))
    lines = -(-len(legend.items) // legend.ncols)
    made.height += (lines - 1) * (legend.glyph_height + legend.spacing)
    legend.click_policy = "hide"


def _style_legend(legend: Any, theme: Theme) -> None:
    legend.border_line_color = None
    legend.background_fill_alpha = 0.0
    legend.label_text_color, legend.label_text_font = theme.ink, _font(theme)
    legend.label_text_font_size = f"{0.9 * theme.size}pt"
    legend.padding, legend.margin, legend.spacing = 2, 2, 12
    legend.orientation, legend.location = "horizontal", "bottom_left"


def bar_style(theme: Theme) -> dict[str, Any]:
    """Return the properties of a colour bar in the colours and fonts of a theme."""
    font = {"text_color": theme.ink, "text_font": _font(theme), "text_font_size": f"{0.9 * theme.size}pt"}
    style = {f"{part}_{name}": value for part in ("title", "major_label") for name, value in font.items()}
    line = {"bar_line_color": None, "major_tick_line_color": theme.ink, "background_fill_alpha": 0.0}
    return {"width": 12, "title_standoff": 6, "title_text_font_style": "normal", **line, **style}


def _add_bar(made: Any, colors: Any, theme: Theme) -> ColorBar:
    ticks = colors.scale.ticks()
    ticks = ticks if made.height > LOW else tuple(ticks[:: max(1, len(ticks) // 2)])
    bar = ColorBar(
        color_mapper=LinearColorMapper(palette=list(colors.palette), low=0.0, high=1.0, tags=turning(colors)),
        ticker=FixedTicker(ticks=[at for at, _ in ticks]),
        major_label_overrides=dict(ticks),
        title=colors.label if made.height > LOW else colors.label.partition(",")[0],
        major_label_policy=AllLabels(),
        **bar_style(theme),
    )
    made.add_layout(bar, "right")
    return bar


def _add_keys(lowest: list[Any], listed: list[Key], theme: Theme) -> None:
    """Name the colours of special values below the last panel, whose row is as much higher."""
    if not listed:
        return
    made, items = lowest[-1], []
    for each in lowest:
        each.height += 26
    for key in listed:
        glyph = made.scatter(
            [float("nan")],
            [float("nan")],
            marker=_MARKERS.get(key.marker, "square"),
            size=11,
            fill_color=key.color,
            line_color=theme.ink if key.marker else "#777777",
            hatch_pattern="/" if key.hatched else None,
            hatch_color="#999999",
        )
        glyph.glyph.tags = ["magnitude"] if key.turns else []
        items.append(LegendItem(label=key.words, renderers=[glyph]))
    legend = Legend(items=items)
    _style_legend(legend, theme)
    made.add_layout(legend, "below")
