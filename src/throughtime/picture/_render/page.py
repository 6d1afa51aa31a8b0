"""Plots as one page, or a frame of a notebook, that needs no network: it contains the drawing library.

Every template escapes its content. The policy of the page allows only the scripts of Bokeh and of the
template, by their hashes, and thus no script or handler in a name. Bokeh compiles the code of hovers and
sliders with `new Function`, which needs 'unsafe-eval'; that code is fixed, and data are its arguments.
"""

import re
import sys
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

from bokeh.embed import components
from bokeh.models import InlineStyleSheet, Toolbar
from bokeh.models.widgets import Slider, Toggle
from bokeh.resources import Resources
from jinja2 import Environment, FileSystemLoader, Template
from markupsafe import Markup, escape

from throughtime._common.text.printable import printable
from throughtime.picture import Picture
from throughtime.picture._drawing.theme import Theme
from throughtime.picture._render import bokeh
from throughtime.picture._render.alt import alt
from throughtime.picture._render.bokeh_text import template_text

# A name in an alphabet written from right to left would draw the numbers beside it into its own order.
_RIGHT_TO_LEFT = re.compile(r"(?<![\w/.-])[\w/.-]*[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc][\w/.-]*")
_INLINE = re.compile(r'<script(?: type="text/javascript")?>(.*?)</script>', re.DOTALL)
_NO_LIBRARY = "<p>The cell with the drawing library was cleared. Restart the kernel and run all cells.</p>"
_holder: list[str] = []  # the cell whose output has the library
# Colours of the figures, and their replacements on a dark page.
_DARK_OF = {
    "#2b2b2b": "#e6e6e6",
    "#0072B2": "#4fb0f0",
    "#D55E00": "#f58b3c",
    "#c0447a": "#e77fa9",
    "#ffffff": "#16181d",
    "#d9d9d9": "#3a3d45",
    "#000000": "#fdfdfd",
    "#222222": "#eeeeee",
    "#003f6b": "#9fd8ff",
    "#1d3c55": "#a9cbe6",
    "#555555": "#b5b5b5",
    "#666666": "#a6a6a6",
    "#c4c4c4": "#4a4d55",
    "#e3e3e8": "#2a2d33",
    "#eeeeee": "#1d1f24",
}


def page(picture: Picture, theme: Theme) -> str:
    """Return one plot as a page."""
    layout = bokeh.draw(picture, on_page(theme), titled=False)
    without_controls_in_print(layout)
    script, (div,) = components([layout])
    return rendered(
        "picture.html",
        script,
        theme,
        title=picture.title or "throughtime",
        subtitle=picture.subtitle,
        picture=Markup(div),
        note=picture.note,
        alt=alt(picture),
        width=int(picture.width * bokeh.PIXELS_AN_INCH + 160),
    )


def in_a_frame(picture: Picture, theme: Theme) -> str:
    """Return a plot as a frame, isolated from the notebook in both directions."""
    before, after = page(picture, theme).split(str(library()))
    return template("frame.html").render(
        id=f"throughtime-{uuid4().hex}",
        height=int(picture.height * bokeh.PIXELS_AN_INCH) + 170 + 60 * len(picture.sliders),
        title=alt(picture),
        is_held=_is_held(),
        library=str(library()),
        before=before,
        after=after,
        message=_NO_LIBRARY,
    )


def _is_held() -> bool:
    """Whether the output of another cell of this notebook has the library; noted if this one has it now."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    kernel: Any = getattr(shell, "kernel", None)
    if kernel is None or "google.colab" in sys.modules:  # Colab keeps the outputs of cells apart
        return False
    cell = str(kernel.get_parent().get("metadata", {}).get("cellId", ""))
    if _holder and (not cell or _holder != [cell]):
        return True
    _holder[:] = [cell]
    return False


def without_controls_in_print(layout: Any) -> None:
    """Hide toolbars, sliders and buttons in print, and give them the colours of the page."""
    hidden = InlineStyleSheet(css=template_text("control.css"))
    for model in layout.references():
        if isinstance(model, (Toolbar, Slider, Toggle)):
            model.stylesheets = [*model.stylesheets, hidden]


def on_page(theme: Theme) -> Theme:
    """Give figures the white of a light page, which its other scheme exchanges."""
    return replace(theme, paper="#ffffff")


def rendered(name: str, script: str, theme: Theme, **content: Any) -> str:
    """Fill a template with Bokeh's JavaScript, the script that draws the figures, and the content."""
    made: str = template(name).render(library=library(), script=Markup(script), **inks(theme), **content)
    return made


def template(name: str) -> Template:
    """Load a page's template."""
    return _templates().get_template(name)


def inks(theme: Theme, further: Mapping[str, str] | None = None) -> dict[str, list[str]]:
    """Return the colours of the figures and, in the same order, their replacements on a dark page."""
    pairs = (
        dict(_DARK_OF)
        | dict(further or {})
        | {theme.ink: "#e6e6e6", theme.paper: "#16181d", theme.faint: "#3a3d45"}
    )
    return {"light": list(pairs), "dark": list(pairs.values())}


@lru_cache(maxsize=1)
def library() -> Markup:
    """Return Bokeh's JavaScript for figures and sliders, from the installed package."""
    parts = Resources(mode="inline", components=["bokeh", "bokeh-widgets"]).js_raw
    return Markup("<script>{}</script>").format(Markup("\n".join(parts)))


def script_sources(scripts: Iterable[str]) -> Markup:
    """Return the hashes of the inline scripts in some markup, for the policy of a page.

    >>> print(script_sources(["<script>let a = 1</script>"]))
    'sha256-LAfYd7pbFUgwfQu8b4q135PeTG2z+/coPEUYCd74eCQ='
    """
    bodies = [body for markup in scripts for body in _INLINE.findall(str(markup or ""))]
    digests = (b64encode(sha256(body.encode()).digest()).decode() for body in bodies)
    return Markup(" ").join(Markup("'sha256-{}'").format(digest) for digest in digests)


def isolated(text: str) -> Markup:
    """Escape a sentence, and keep its order around names that are written from right to left."""
    return Markup(_RIGHT_TO_LEFT.sub(r"<bdi>\g<0></bdi>", str(escape(printable(text)))))


def _finalized(value: Any) -> Any:
    return printable(value) if type(value) is str else value  # markup is ours


@lru_cache(maxsize=1)
def _templates() -> Environment:
    folder = Path(__file__).with_name("templates")
    made = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"script_sources": script_sources, "isolated": isolated}
    return made
