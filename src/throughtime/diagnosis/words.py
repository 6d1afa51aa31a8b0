"""The words of a diagnosis: every sentence, from `words.toml`, and how numbers are written.

`phrase` fills a sentence in; `judge` decides which, and the tests produce each of them.
"""

import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_TABLES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
SENTENCES: Mapping[str, str] = _TABLES["sentences"]
SOURCES: Mapping[str, str] = _TABLES["sources"]
FACTS: Mapping[str, str] = _TABLES["facts"]


def phrase(key: str, **values: Any) -> str:
    """Fill in one sentence.

    >>> phrase("no_partner")
    'no two samples share length and mask'
    """
    return SENTENCES[key].format(**values)


def number(value: float) -> str:
    """Format a number with three digits.

    >>> number(0.000123456), number(float("nan"))
    ('0.000123', 'not measured')
    """
    return "not measured" if math.isnan(value) else f"{value:.3g}"


def with_interval(value: float, interval: tuple[float, float]) -> str:
    """Format a number with its interval, if it has one.

    >>> with_interval(0.5, (0.4, 0.6)), with_interval(0.5, (float("nan"), float("nan")))
    ('0.5 [0.4, 0.6]', '0.5')
    """
    if any(math.isnan(end) for end in interval):
        return number(value)
    return f"{number(value)} [{number(interval[0])}, {number(interval[1])}]"


def size(ratio: float) -> str:
    """Format a ratio: in percent, or as a multiple.

    >>> size(0.0137), size(1.33), size(4.29), size(32000.0), size(1e-20)
    ('1.4 %', '133 %', '4.3 ×', '32,000 ×', '< 0.001 %')
    """
    if 0 < ratio < 1e-5:
        return "< 0.001 %"
    if ratio < 0.1:
        return f"{100 * ratio:.2g} %"
    if ratio < 2:
        return f"{100 * ratio:.0f} %"
    if ratio < 10:
        return f"{ratio:.1f} ×"
    return f"{ratio:,.0f} ×" if ratio < 1e6 else f"{ratio:.1e} ×"


def join_words(parts: list[str]) -> str:
    """Join the items of a list in a sentence.

    >>> join_words(["a"]), join_words(["a", "b"]), join_words(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last
