"""Paragraphs, lists and tables: one description for plain text, terminals and notebooks.

An object lists its parts, and `Shown` displays them. Each view shows texts unchanged: no markup of rich, no
HTML, no control characters.
"""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest

from markupsafe import Markup
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from throughtime._common.text.printable import Printable

Row = tuple[str, ...]
_WIDTH = 110
# A notebook's own colours show through; it would put cells to the right.
_STYLE = Markup(
    ".throughtime p { margin: 0.3em 0; max-width: 72em; }"
    ".throughtime table { border-collapse: collapse; margin: 0.5em 0; display: block; overflow-x: auto; }"
    ".throughtime :is(th, td) { text-align: left; padding: 0.2em 1.2em 0.2em 0; vertical-align: top;"
    " border: 0; border-bottom: 1px solid rgba(128, 128, 128, 0.35); font-variant-numeric: tabular-nums; }"
    ".throughtime thead th { font-weight: normal; opacity: 0.7; }"
)


@dataclass(frozen=True)
class Paragraph(Printable):
    """One paragraph."""

    text: str
    bold: bool = False


@dataclass(frozen=True)
class Items(Printable):
    """A heading with a list below."""

    heading: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Table(Printable):
    """Rows below headings; a row of one cell is the heading of those that follow.

    `numbers` are the places of right-aligned columns.
    """

    rows: tuple[Row, ...]
    headings: Row = ()
    caption: str = ""
    numbers: tuple[int, ...] = ()


Part = Paragraph | Items | Table


class Shown:
    """An object that prints as its parts, which a subclass lists."""

    def __parts__(self) -> Iterable[Part]:
        raise NotImplementedError

    def __rich__(self) -> RenderableType:
        blocks = [block for part in self.__parts__() for block in _rich(part)]
        return Group(*[each for block in blocks for each in (Text(), block)][1:])

    def __str__(self) -> str:
        return as_text(self.__rich__())

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return str(as_notebook(self))


def as_text(shown: RenderableType) -> str:
    """Render at a fixed width, without colours and trailing blanks, independent of the terminal.

    >>> as_text("certificate 1e-07")
    'certificate 1e-07'
    """
    file = io.StringIO()
    console = Console(
        file=file,
        width=_WIDTH,
        highlight=False,
        color_system=None,
        force_terminal=False,
        force_jupyter=False,
        force_interactive=False,
    )
    console.print(shown)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def as_html(*shown: Shown | Part) -> Markup:
    """Lay parts out for a notebook or a page.

    >>> print(as_html(Paragraph("a < b")))
    <p>a &lt; b</p>
    """
    return Markup("").join(map(_html, _flat(shown)))


def as_notebook(*shown: Shown | Part, below: Markup | None = None) -> Markup:
    """Lay parts out for a notebook, light or dark; `below` is folded away."""
    folded = Markup("" if below is None else "<details><summary>Arrays</summary>{}</details>").format(below)
    return Markup('<div class="throughtime"><style>{}</style>{}{}</div>').format(
        _STYLE, as_html(*shown), folded
    )


def as_rich(*parts: Part) -> list[RenderableType]:
    """Render parts for a terminal of any width."""
    return [block for part in parts for block in _rich(part)]


def _flat(shown: Iterable[Shown | Part]) -> Iterator[Part]:
    for each in shown:
        yield from each.__parts__() if isinstance(each, Shown) else (each,)


def _rich(part: Part) -> Iterator[RenderableType]:
    match part:
        case Paragraph(text, bold):
            yield Text(text, style="bold" if bold else "")
        case Items(heading, lines):
            yield Group(Text(heading), *(Text(f"  {line}") for line in lines))
        case Table():
            yield _Fitted(part)


@dataclass(frozen=True)
class _Fitted:
    """A table as wide as its cells; if the terminal is narrower, cells wrap."""

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = zip_longest(self.table.headings, *_bodies(self.table.rows), fillvalue="")
        widths = [max(map(len, column)) for column in columns]
        is_fitting = 2 + sum(widths) + 2 * len(widths) <= options.max_width
        yield Group(*_rich_table(self.table, widths if is_fitting else []))


def _rich_table(table: Table, widths: list[int]) -> Iterator[RenderableType]:
    """Render one table for each heading of rows, with columns of at least these widths."""
    caption = [Text(table.caption)] if table.caption else []
    columns = max([len(table.headings), *map(len, _bodies(table.rows))])
    for heading, rows in _groups(table.rows):
        made = RichTable(box=None, show_header=bool(table.headings), padding=(0, 2, 0, 0), pad_edge=False)
        for place in range(columns):
            made.add_column(
                Text(table.headings[place] if place < len(table.headings) else ""),
                justify="right" if place in table.numbers else "left",
                min_width=widths[place] if widths else None,
                overflow="fold",
            )
        for row in rows:
            made.add_row(*map(Text, row))
        yield (
            Group(*caption, Text(heading), Padding(made, (0, 0, 0, 2))) if heading else Group(*caption, made)
        )


def _bodies(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if len(row) > 1]


def _groups(rows: Iterable[Row]) -> Iterator[tuple[str, list[Row]]]:
    heading, body = "", list[Row]()
    for row in rows:
        if len(row) > 1:
            body.append(row)
            continue
        if heading or body:
            yield heading, body
        heading, body = row[0], []
    yield heading, body


def _html(part: Part) -> Markup:
    match part:
        case Paragraph(text, bold):
            return Markup("<p><b>{}</b></p>" if bold else "<p>{}</p>").format(text)
        case Items(heading, lines):
            items = Markup("").join(Markup("<li>{}</li>").format(line) for line in lines)
            return Markup("<p>{}</p><ul>{}</ul>").format(heading, items)
    return _html_table(part)


def _html_table(table: Table) -> Markup:
    across = max([len(table.headings), *map(len, table.rows)])
    head = Markup("").join(_cell("th", name, 'scope="col"') for name in table.headings)
    return Markup("<table>{}{}<tbody>{}</tbody></table>").format(
        Markup("<caption>{}</caption>").format(table.caption) if table.caption else "",
        Markup("<thead><tr>{}</tr></thead>").format(head) if any(table.headings) else "",
        Markup("").join(_html_row(row, across) for row in table.rows),
    )


def _html_row(row: Row, across: int) -> Markup:
    if len(row) == 1:
        return Markup("<tr>{}</tr>").format(_cell("th", row[0], f'colspan="{across}"'))
    first = _cell("th", row[0], 'scope="row"') if row[0] else _cell("td", "")
    return Markup("<tr>{}{}</tr>").format(first, Markup("").join(_cell("td", text) for text in row[1:]))


def _cell(tag: str, text: str, attributes: str = "") -> Markup:
    start = f"{tag}{' ' * bool(attributes)}{attributes}"
    return Markup(f"<{start}>{{}}</{tag}>").format(text)
