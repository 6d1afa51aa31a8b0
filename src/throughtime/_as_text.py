"""What rich would show in a terminal as plain text: `str()` of objects that print as tables."""

from __future__ import annotations

from rich.console import Console, RenderableType

_WIDTH = 110


def as_text(shown: RenderableType) -> str:
    """Render at a fixed width, without colours and trailing blanks.

    Examples
    --------
    >>> as_text("certificate 1e-07")
    'certificate 1e-07'
    """
    console = Console(width=_WIDTH, highlight=False)
    with console.capture() as captured:
        console.print(shown)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def plain(text: object) -> str:
    r"""Show a text from data as text: what steers a terminal, escape sequences first of all, is replaced.

    Examples
    --------
    >>> plain("lstm\x1b[2J")
    'lstm�[2J'
    """
    return "".join(letter if letter.isprintable() or letter == "\n" else "�" for letter in str(text))
