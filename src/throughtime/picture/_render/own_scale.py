"""A button on a page that shows each image relative to its largest magnitude."""

from dataclasses import replace
from typing import Any

from bokeh.models import CustomJS
from bokeh.models.widgets import Toggle

from throughtime.picture import Image, Picture
from throughtime.picture._drawing.colors import TOP, Colors
from throughtime.picture._drawing.scale import Scale
from throughtime.picture._render.bokeh_text import template_text

WORDS = "own scale"


def button(picture: Picture) -> Any:
    """Make the button if a plot has several images or frames on one logarithmic scale, otherwise None."""
    images = [image for image in picture.marks(Image) if image.colors.scale.kind == "log10"]
    if len(images) * picture.frames < 2 or any("÷ largest" in image.colors.label for image in images):
        return None
    return Toggle(label=WORDS, active=False, name=WORDS, width=90)


def relative(colors: Colors) -> Colors:
    """Return the colours relative to the largest magnitude, for the colour bar."""
    scale = colors.scale
    name, comma, rest = colors.label.partition(",")
    parts = Scale("log10", scale.low / scale.high, 1.0)
    return replace(colors, scale=parts, label=f"{name} ÷ largest of each{comma}{rest}")


def follow(widget: Any, event: str, frames: Any) -> None:
    """Scale again when a widget changes, after its other effects."""
    if frames.own is not None:
        arguments = {"own": frames.own, "images": frames.images, "bars": frames.bars, "top": TOP}
        widget.js_on_change(event, CustomJS(args=arguments, code=template_text("own_scale.js")))
