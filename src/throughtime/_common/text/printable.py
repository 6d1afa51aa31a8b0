"""Printable text: without control characters and marks of direction."""

import unicodedata
from dataclasses import fields
from typing import Any


def printable(text: str) -> str:
    r"""Escape every character that is not visible; spaces and line breaks remain.

    Terminals act on control characters, XML forbids them, and marks of direction reorder other characters.

    >>> printable("lstm\x1b[31m"), printable("a\u2028b"), printable("dL/dhₜ · größe")
    ('lstm\\x1b[31m', 'a\\u2028b', 'dL/dhₜ · größe')
    """
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character.isprintable() or character == "\n" or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape").decode()


class Printable:
    """A frozen dataclass whose texts, also within tuples, are made printable."""

    def __post_init__(self) -> None:
        for each in fields(self):  # type: ignore[arg-type]
            object.__setattr__(self, each.name, _printed(getattr(self, each.name)))


def _printed(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    return tuple(map(_printed, value)) if type(value) is tuple else value
