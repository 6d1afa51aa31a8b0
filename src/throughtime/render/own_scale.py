"""A button on a page that shows each image relative to its largest magnitude."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from bokeh.models import CustomJS
from bokeh.models.widgets import Toggle

from throughtime._drawing.colors import TOP, Colors
from throughtime._drawing.scale import Scale
from throughtime.picture import Image, Picture

WORDS = "own scale"
# Codes of a logarithmic scale are shifted until the largest is at its end.
_APPLY = """
for (const source of images) {
    source.codes ??= source.data.image
    const image = !own.active ? source.codes : source.codes.map(codes => {
        let most = -1
        for (const code of codes) if (code > most) most = code
        const moved = new codes.constructor(codes, codes.shape)
        if (most >= 0) for (let i = 0; i < moved.length; i++) if (moved[i] >= 0) moved[i] += top - most
        return moved
    })
    source.data = {...source.data, image}
}
for (const [shared, relative] of bars) { shared.visible = !own.active; relative.visible = own.active }
"""


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
        widget.js_on_change(event, CustomJS(args=arguments, code=_APPLY))


def connected(frames: Any) -> Iterator[Any]:
    """Yield the button with its effect, if there is one."""
    if frames.own is not None:
        follow(frames.own, "active", frames)
        yield frames.own
