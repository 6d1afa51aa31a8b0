"""Sections of pictures and tables as one offline page, with contents and linked axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bokeh.document import Document
from bokeh.embed import components
from markupsafe import Markup

from throughtime._drawing.theme import Theme
from throughtime._text.tables import Part, Shown, as_html
from throughtime.picture import Image, Picture
from throughtime.render import bokeh
from throughtime.render.alt import alt
from throughtime.render.page import on_page, rendered

MOST_CELLS = 700_000  # of all images of a report: under 2 MB


@dataclass(frozen=True)
class Section:
    """A chapter: texts and tables, and pictures by the names under which the contents list them."""

    title: str
    paragraphs: tuple[str, ...] = ()
    shown: tuple[Shown | Part, ...] = ()
    pictures: tuple[tuple[str, Picture], ...] = ()
    left_out: tuple[str, ...] = ()


def report_page(title: str, sections: Sequence[Section], theme: Theme) -> str:
    """Draw all sections into one page; pictures of a section share the ranges of equal axes."""
    pictures = [picture for section in sections for _, picture in section.pictures]
    drawn = _drawn(sections, theme, _most_cells(pictures))
    script, divs = _embedded(drawn) if drawn else ("", ())
    places = iter(divs)
    content = [_content(section, number, places) for number, section in enumerate(sections)]
    return rendered("report.html", script, theme, title=title, sections=content)


def _embedded(drawn: list[Any]) -> tuple[str, tuple[str, ...]]:
    """Give the script and the places of all figures; the document is looked through once, not for each."""
    document = Document()
    with document.models.freeze():
        for layout in drawn:
            document.add_root(layout)
    script, divs = components(drawn)
    return script, tuple(divs)


def _most_cells(pictures: Sequence[Picture]) -> float:
    """Cells that a picture may have, such that all together keep the budget: only larger ones are shrunk."""
    left, cells = float(MOST_CELLS), sorted(_cells(picture) for picture in pictures)
    for place, count in enumerate(cells):
        equal = left / (len(cells) - place)
        if count > equal:
            return equal
        left -= count
    return float(MOST_CELLS)


def _cells(picture: Picture) -> int:
    return sum(image.values.size for image in picture.marks(Image))


def _drawn(sections: Sequence[Section], theme: Theme, most_cells: float) -> list[Any]:
    drawn = []
    for section in sections:
        ranges = bokeh.Ranges()
        for _, picture in section.pictures:
            drawn.append(
                bokeh.draw(picture, on_page(theme), titled=False, ranges=ranges, most_cells=most_cells)
            )
    return drawn


def _content(section: Section, number: int, divs: Any) -> dict[str, Any]:
    figures = [
        {
            "anchor": f"section-{number}-{place}",
            "name": name,
            "title": picture.title,
            "subtitle": picture.subtitle,
            "div": Markup(next(divs)),
            "note": picture.note,
            "alt": alt(picture),
        }
        for place, (name, picture) in enumerate(section.pictures)
    ]
    return {
        "anchor": f"section-{number}",
        "title": section.title,
        "paragraphs": section.paragraphs,
        "shown": as_html(*section.shown),
        "figures": figures,
        "left_out": section.left_out,
    }
