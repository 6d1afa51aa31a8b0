"""Texts that Bokeh draws as they are: in a title, label or tick it takes $$…$$ for a formula."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from bokeh.core.property.text_like import TextLike
from bokeh.model import Model
from bokeh.models import PlainText

_TEX = re.compile(r"\$\$|\\\(|\\\[")


def plain(words: str) -> str | PlainText:
    """Give words that hold no formula, whatever is in them."""
    return PlainText(text=words) if _TEX.search(words) else words


def without_tex(model: Model) -> None:
    """Make texts plain wherever a model would read TeX in them."""
    for name in _texts_of(type(model)):
        value = getattr(model, name)
        if isinstance(value, str):
            setattr(model, name, plain(value))
        elif isinstance(value, dict):
            setattr(model, name, {at: plain(word) for at, word in value.items()})


@cache
def _texts_of(kind: type[Model]) -> tuple[str, ...]:
    """Properties of a model that take TeX, known by their type."""
    return tuple(name for name in sorted(kind.properties()) if _takes_tex(kind.lookup(name).property))


def _takes_tex(property_type: Any) -> bool:
    return isinstance(property_type, TextLike) or any(
        map(_takes_tex, getattr(property_type, "type_params", ()))
    )
