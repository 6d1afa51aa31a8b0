"""Pictures as one page that needs no network: the drawing library is inside, requests are forbidden."""

from __future__ import annotations

import html
from functools import lru_cache
from pathlib import Path

from bokeh.embed import components
from bokeh.resources import Resources
from jinja2 import Environment, Template
from markupsafe import Markup

from throughtime._theme import Theme
from throughtime.picture import Picture
from throughtime.render import bokeh
from throughtime.render.alt import alt


def page(picture: Picture, theme: Theme) -> str:
    """Give one picture as a page of its own."""
    script, (div,) = components([bokeh.draw(picture, theme, titled=False)])
    made: str = template("page.html").render(
        title=picture.title or "throughtime",
        library=library(),
        picture=Markup(div),
        script=Markup(script),
        note=picture.note,
        alt=alt(picture),
        theme=theme,
        width=int(picture.width * bokeh.PIXELS_AN_INCH + 160),
    )
    return made


def in_a_frame(picture: Picture, theme: Theme) -> str:
    """Give a picture as a frame inside a notebook: nothing in it can reach the notebook, or be reached."""
    sliders = 60 * len(picture.sliders)
    height = int(picture.height * bokeh.PIXELS_AN_INCH) + 120 + sliders
    content = html.escape(page(picture, theme), quote=True)
    return (
        f'<iframe sandbox="allow-scripts allow-downloads" width="100%" height="{height}" '
        f'style="border:0" title="{html.escape(alt(picture), quote=True)}" srcdoc="{content}"></iframe>'
    )


@lru_cache(maxsize=1)
def library() -> Markup:
    """Bokeh's own JavaScript, as it comes with the package: the figures and the sliders."""
    parts = Resources(mode="inline", components=["bokeh", "bokeh-widgets"]).js_raw
    return Markup("\n".join(parts))


def template(name: str) -> Template:
    """Load a template beside this file."""
    source = Path(__file__).with_name(name).read_text(encoding="utf-8")
    return Environment(autoescape=True).from_string(source)
