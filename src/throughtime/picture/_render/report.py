"""A report as one offline page: the answer on top, and folded layers below, drawn when they are unfolded."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bokeh.document import Document
from bokeh.embed import components
from bokeh.models.widgets import Slider
from markupsafe import Markup

from throughtime._common.text.tables import Part, Shown, as_html
from throughtime.picture import Image, Picture
from throughtime.picture._drawing.theme import Theme
from throughtime.picture._render import bokeh
from throughtime.picture._render.alt import alt
from throughtime.picture._render.glyphs import texts
from throughtime.picture._render.page import on_page, rendered, without_controls_in_print

MOST_CELLS = 560_000  # of all images of a report: with the drawing library under 4 MB
OPEN = 3  # figures of a section that are visible when it is unfolded
_TAG = re.compile(r"^\s*<script[^>]*>|</script>\s*$")

# A figure has a name and one or several named plots, of which the reader chooses one.
Figure = tuple[str, tuple[tuple[str, Picture], ...]]


@dataclass(frozen=True)
class Opening:
    """The top of a report; facts, actions and sparks as the templates read them."""

    headline: str
    tone: str
    paragraphs: tuple[str, ...] = ()
    facts: tuple[Any, ...] = ()
    picture: Picture | None = None
    actions: tuple[Any, ...] = ()
    sparks: tuple[Any, ...] = ()
    trend: tuple[str, ...] = ()
    records: Shown | Part | None = None
    notes: tuple[str, ...] = ()
    origin: tuple[Shown | Part, ...] = ()


@dataclass(frozen=True)
class Section:
    """A fold: a name, a short description, tables, and figures of which the first few are open."""

    title: str
    lead: str = ""
    shown: tuple[Shown | Part, ...] = ()
    figures: tuple[Figure, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass
class _Drawing:
    """The scripts that draw the figures of the page, by name."""

    theme: Theme
    most_cells: float
    scripts: dict[str, Markup] = field(default_factory=dict)

    def add(self, name: str, pictures: Sequence[Picture]) -> Iterator[Markup]:
        """Draw plots as one document and yield their elements; equal axes move together."""
        ranges = bokeh.Ranges()
        drawn = [
            bokeh.draw(one, on_page(self.theme), titled=False, ranges=ranges, most_cells=self.most_cells)
            for one in pictures
        ]
        if not drawn:
            return
        document = Document()
        with document.models.freeze():
            for layout in drawn:
                without_controls_in_print(layout)
                document.add_root(layout)
        _step_together(drawn)
        script, divs = components(drawn)
        self.scripts[name] = Markup(_TAG.sub("", script))
        yield from map(Markup, divs)


def report_page(title: str, answer: Opening, sections: Sequence[Section], theme: Theme) -> str:
    """Write the page."""
    pictures = [one for section in sections for _, choices in section.figures for _, one in choices]
    drawing, opening = _Drawing(theme, _most_cells(pictures)), None
    if answer.picture is not None:
        opening = _figure("reach", answer.picture, next(drawing.add("top", [answer.picture])))
    folds = [_fold(section, number, drawing) for number, section in enumerate(sections)]
    records = as_html(answer.records) if answer.records is not None else ""
    origin = as_html(*answer.origin)
    written = " ".join(map(str, (replace(answer, origin=()), folds, records, origin, *map(texts, pictures))))
    return rendered(
        "report.html",
        "",
        theme,
        title=title,
        answer=answer,
        opening=opening,
        records=records,
        used=lambda words: re.search(rf"(?<!\w)({words})", written, re.IGNORECASE),
        folds=folds,
        origin=origin,
        drawings=drawing.scripts,
    )


def _step_together(drawn: Sequence[Any]) -> None:
    """Link sliders of the same name and length."""
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for layout in drawn:
        for slider in layout.select({"type": Slider}):
            groups.setdefault((slider.name, slider.end), []).append(slider)
    for sliders in groups.values():
        for one, other in zip(sliders, [*sliders[1:], sliders[0]], strict=True):
            if one is not other:
                one.js_link("value", other, "value")


def _most_cells(pictures: Sequence[Picture]) -> float:
    """Return the cells that a plot may have such that all keep the budget; only larger ones are shrunk."""
    cells = sorted(sum(image.values.size for image in picture.marks(Image)) for picture in pictures)
    left = float(MOST_CELLS)
    for place, count in enumerate(cells):
        equal = left / (len(cells) - place)
        if count > equal:
            return equal
        left -= count
    return float(MOST_CELLS)


def _fold(section: Section, number: int, drawing: _Drawing) -> dict[str, Any]:
    anchor = f"section-{number}"
    divs = drawing.add(anchor, [one for _, choices in section.figures for _, one in choices])
    figures = [
        {
            "name": name,
            "anchor": f"{anchor}-{place}",
            "choices": [
                _figure(f"{anchor}-{place}-{which}", picture, next(divs)) | {"name": words}
                for which, (words, picture) in enumerate(choices)
            ],
        }
        for place, (name, choices) in enumerate(section.figures)
    ]
    return {
        "anchor": anchor,
        "title": section.title,
        "lead": section.lead,
        "shown": as_html(*section.shown),
        "figures": figures[:OPEN],
        "more": figures[OPEN:],
        "left_out": section.left_out,
    }


def _figure(anchor: str, picture: Picture, div: Markup) -> dict[str, Any]:
    return {
        "anchor": anchor,
        "title": picture.title,
        "subtitle": picture.subtitle,
        "div": div,
        "note": picture.note,
        "alt": alt(picture),
    }
