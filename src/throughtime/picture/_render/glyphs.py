"""The texts of a plot, and fonts for letters that a theme's font lacks, such as emoji."""

import unicodedata
from collections.abc import Callable, Set
from dataclasses import fields, is_dataclass, replace
from functools import cache
from itertools import groupby
from typing import Any

from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

from throughtime.picture import Picture
from throughtime.picture._drawing.theme import Theme

_BOXES = ("Last Resort High-Efficiency", "Last Resort")  # a font that has a box for every letter
_SCALABLE = 1  # a flag of FreeType; matplotlib does not draw fonts of bitmaps


def drawable(picture: Picture, theme: Theme) -> tuple[Picture, list[str]]:
    """Return a plot with the fonts that have its letters; a letter that no font has becomes its name."""
    letters = {letter for text in texts(picture) if not text.isascii() for letter in text}
    others = {each for each in letters if not _has(findfont(FontProperties(family=theme.font)), each)} - {
        "\n"
    }
    fonts = {letter: font for letter in sorted(others) if (font := _font_with(letter))}
    lost = others - fonts.keys()
    drawn = _rewritten(picture, lambda text: named(text, lost), {}) if lost else picture
    return drawn, list(dict.fromkeys([theme.font, *fonts.values()]))


def texts(picture: Picture) -> list[str]:
    """List every text of a plot."""
    found: list[str] = []
    _rewritten(picture, lambda text: found.append(text) or text, {})  # type: ignore[func-returns-value]
    return found


def named(text: str, letters: Set[str]) -> str:
    """Write the names of some letters; marks that only modify the letter before are left out.

    >>> named("run 🙂🙂 中", {"🙂", "中"})
    'run [slightly smiling face ×2] [U+4E2D]'
    """
    if letters.isdisjoint(text):
        return text
    runs = ((letter, len([*same])) for letter, same in groupby(text))
    return "".join(_name(letter, count) if letter in letters else letter * count for letter, count in runs)


def _name(letter: str, count: int) -> str:
    kind = unicodedata.category(letter)
    if kind[0] == "M":
        return ""
    name = unicodedata.name(letter, "").lower() if kind[0] == "S" else ""
    return f"[{name or f'U+{ord(letter):04X}'}{f' ×{count}' if count > 1 else ''}]"


@cache
def _font_with(letter: str) -> str:
    """Find an upright font of this machine that has a letter; empty if there is none."""
    upright = (font for font in fontManager.ttflist if font.style == "normal" and font.name not in _BOXES)
    return next((font.name for font in upright if _has(font.fname, letter)), "")


@cache
def _has(path: str, letter: str) -> bool:
    font: Any = get_font(path)
    flags = getattr(font.face_flags, "value", font.face_flags)  # a number before matplotlib 3.11
    return bool(flags & _SCALABLE and font.get_char_index(ord(letter)))


def _rewritten(value: Any, change: Callable[[str], str], known: dict[int, Any]) -> Any:
    """Change every text in nested dataclasses; what is shared or unchanged stays the same object."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, tuple):
        parts = tuple(_rewritten(each, change, known) for each in value)
        return parts if any(old is not new for old, new in zip(value, parts, strict=True)) else value
    if not is_dataclass(value) or isinstance(value, type):
        return value
    if id(value) not in known:
        before = {each.name: getattr(value, each.name) for each in fields(value)}
        after = {name: _rewritten(part, change, known) for name, part in before.items()}
        new = {name: part for name, part in after.items() if part is not before[name]}
        known[id(value)] = replace(value, **new) if new else value
    return known[id(value)]
