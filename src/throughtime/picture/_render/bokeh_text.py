"""Texts that Bokeh does not parse, as in a title it reads $$…$$ as a formula; and code that it does."""

import re
from functools import cache
from pathlib import Path
from typing import Any

from bokeh.core.property.text_like import TextLike
from bokeh.model import Model
from bokeh.models import PlainText

_TEX = re.compile(r"\$\$|\\\(|\\\[")


@cache
def template_text(name: str) -> str:
    """Read a script or style sheet from the templates."""
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


def plain(words: str) -> str | PlainText:
    """Return words that are never read as a formula."""
    return PlainText(text=words) if _TEX.search(words) else words


def without_tex(model: Model) -> None:
    """Make all texts plain that a model would parse as TeX."""
    for name in _texts_of(type(model)):
        value = getattr(model, name)
        if isinstance(value, str):
            setattr(model, name, plain(value))
        elif isinstance(value, dict):
            setattr(model, name, {at: plain(word) for at, word in value.items()})


@cache
def _texts_of(kind: type[Model]) -> tuple[str, ...]:
    """List the properties of a model that accept TeX, by their type."""
    return tuple(name for name in sorted(kind.properties()) if _takes_tex(kind.lookup(name).property))


def _takes_tex(property_type: Any) -> bool:
    return isinstance(property_type, TextLike) or any(
        map(_takes_tex, getattr(property_type, "type_params", ()))
    )
