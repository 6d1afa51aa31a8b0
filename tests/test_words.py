"""Docstrings, comments and messages use the words of the field; words of an older style may not return."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import throughtime as tt

HOME = Path(tt.__file__).parent
FORBIDDEN = {
    r"\b(tell|tells|telling|told)\b": "report, return, print, name or format",
    r"\b(say|says|said|saying)\b": "report, return, name or show",
    r"\bheld against\b": "compared with",
    r"\bof (one's|your|its|their|his) own\b": "custom, separate, or no word at all",
    r"\bhas no inside\b": "cannot be looked into",
    r"\b(goes|go|going) on\b": "continue",
    r"\bhand(s|ed)? (in|over|on)\b": "pass",
    r"\blooks? at\b": "check, read or capture",
    r"\b(is|are) laid out\b": "has the layout",
    r"\bput(s|ting)? back\b": "restore",
    r"\b(written|made|read) anew\b": "rewrite, recreate or reread",
    r"\bgiven? back\b": "return",
    r"^\W*(Of|What|Whoever) (?!.*\?)": "the subject first",
    r"\bpictures?\b": "plot",
}


def rooms() -> list[str]:
    names = sorted(path.name for path in HOME.iterdir() if path.is_dir() or path.suffix == ".py")
    return [name for name in names if name != "__pycache__"]


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of each comment and each string with a space, without examples and code."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("# ")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            for number, line in enumerate(node.value.splitlines()):
                if not line.lstrip().startswith((">>>", "...")) and not re.match(r"\s*\w+ : [A-Z]\w+$", line):
                    yield node.lineno + number, re.sub(r"`[^`]*`", "", line)


def table(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of each line of a table, without the name of its row."""
    for number, line in enumerate(source.splitlines(), 1):
        yield number, re.sub(r"^(\w+ = [\"']+|# )", "", line)


def found(room: str) -> list[str]:
    path = HOME / room
    readers = {".py": texts, ".toml": table}
    return [
        f"{file.relative_to(HOME)}:{line}: {text.strip()!r}: {better} instead of {match[0].strip()!r}"
        for file in (path.rglob("*.*") if path.is_dir() else [path])
        if file.suffix in readers
        for line, text in readers[file.suffix](file.read_text(encoding="utf-8"))
        for pattern, better in FORBIDDEN.items()
        if (match := re.search(pattern, text))
    ]


@pytest.mark.parametrize("room", rooms())
def test_a_room_uses_the_words_of_the_field(room: str) -> None:
    assert not found(room), "\n".join(found(room))


def test_words_are_found_in_docstrings_comments_and_messages() -> None:
    source = '"""It tells all."""\nx = f"told {1} twice"  # says no\n'
    assert [line for line, _ in texts(source)] == [2, 1, 2, 2]
    assert all(any(re.search(each, text) for each in FORBIDDEN) for _, text in list(texts(source))[:3])
