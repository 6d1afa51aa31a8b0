"""Rules for arguments: each converts a value, or refuses it with a message.

They import only NumPy; `takes` applies them at the public border.
"""

import math
import operator
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from throughtime._common.text.printable import printable
from throughtime._errors import ArgumentError, ThroughTimeError, did_you_mean
from throughtime._inputs.structures import to_numpy

_LONGEST = 80  # characters of a value in a message
_LONGEST_NAME = 255  # bytes of a file name on all common file systems


@dataclass(frozen=True)
class Rule:
    """The allowed values of an argument.

    `take` returns the converted value, or raises any error to refuse it; `expected` describes allowed values,
    `names` lists them if they are names. `error` replaces that of the function. If the function fails,
    `explain` returns what is wrong with the value, or an empty string.
    """

    take: Callable[[Any], Any]
    expected: str
    error: type[ThroughTimeError] | None = None
    names: tuple[str, ...] = ()
    explain: Callable[[Any], str] | None = None

    def __call__(self, name: str, value: Any, error: type[ThroughTimeError] = ArgumentError) -> Any:
        try:
            return self.take(value)
        except ThroughTimeError:
            raise
        except Exception:  # the user's object may raise anything
            hint = did_you_mean(value, self.names) if isinstance(value, str) else ""
            refused = self.error or error
            raise refused(f"{name}={describe(value)}: expected {self.expected}.{hint}") from None


def describe(value: Any) -> str:
    """Format any value in one line; an array by its type and shape.

    >>> describe(np.zeros((2, 3))), describe("no")
    ('ndarray float64 (2, 3)', "'no'")
    """
    try:
        shape = tuple(getattr(value, "shape", ()))
        words = f"{type(value).__name__} {value.dtype} {shape}" if shape else repr(value)
    except Exception:  # an object without a repr is described by its type
        words = f"a {type(value).__name__}"
    words = printable(words).replace("\n", " ")
    return words if len(words) <= _LONGEST else f"{words[: _LONGEST - 1]}…"


def require(holds: Any) -> None:
    """Refuse the value if the condition is false."""
    if not holds:
        raise ValueError


def where(
    holds: Callable[[Any], object],
    expected: str,
    error: type[ThroughTimeError] | None = None,
    *,
    rule: Rule | None = None,
) -> Rule:
    """Allow values for which a condition holds; a `rule`, if it is given, converts them first."""

    def take(value: Any) -> Any:
        value = value if rule is None else rule.take(value)
        require(holds(value))
        return value

    return Rule(take, expected, error)


def whole(least: int | None = None, most: int | None = None, *, of: str = "") -> Rule:
    """Allow whole numbers of Python, NumPy or a scalar tensor, but not True and False."""

    def take(value: Any) -> int:
        require(not isinstance(value, bool | np.bool_))
        number = operator.index(value)
        require((least is None or number >= least) and (most is None or number <= most))
        return number

    return Rule(take, f"a whole number{of and f' of {of}'}{_span(least, most)}")


def number(
    least: float | None = None,
    most: float | None = None,
    unit: str = "",
    *,
    inside: bool = False,
    finite: bool = True,
) -> Rule:
    """Allow real numbers of Python, NumPy or a scalar tensor; with `inside` both ends are excluded."""

    def take(value: Any) -> float:
        require(not isinstance(value, bool | np.bool_ | str | bytes | bytearray | memoryview))
        require(not getattr(value, "shape", ()))
        number = float(value)
        require(math.isfinite(number) or not finite)
        require(least is None or number > least or (number == least and not inside))
        require(most is None or number < most or (number == most and not inside))
        return number

    words = f"{_span(least, most)}{', both excluded' * inside}{unit and f', in {unit}'}"
    return Rule(take, f"a {'finite ' * finite}number{words}")


def choice(*names: str, error: type[ThroughTimeError] | None = None) -> Rule:

    def take(value: Any) -> str:
        require(isinstance(value, str) and value in names)
        return str(value)

    return Rule(take, f"one of {', '.join(names)}", error, names)


def several(rule: Rule, *, pair: bool = False, least: int = 0) -> Rule:
    """Allow an iterable of values that fit a rule: a pair, or any number of values, or a single value."""

    def take(value: Any) -> tuple[Any, ...]:
        is_one = isinstance(value, str) or not isinstance(value, Iterable) or getattr(value, "shape", 1) == ()
        items = (value,) if is_one else tuple(value)
        require(not pair or (len(items) == 2 and not is_one))
        require(len(items) >= least)
        return tuple(rule.take(item) for item in items)

    many = re.sub(r"\b(number|text)\b", r"\1s", rule.expected.removeprefix("a "), count=1)
    words = f"{'two ' * pair}{many}{f', {least} or more of them' if least else ''}"
    return Rule(take, words, rule.error, rule.names)


def optional(rule: Rule) -> Rule:

    def take(value: Any) -> Any:
        return None if value is None else rule.take(value)

    return Rule(take, f"{rule.expected}, or None", rule.error, rule.names)


def either(first: Rule, second: Rule) -> Rule:
    """Allow a value that fits one of two rules."""

    def take(value: Any) -> Any:
        try:
            return first.take(value)
        except Exception:  # any error: try the second rule
            return second.take(value)

    return Rule(take, f"{first.expected}, or {second.expected}", second.error, second.names)


def array(*ranks: int, least: int = 0, kinds: str = "biuf") -> Rule:
    """Allow arrays of real numbers, with one of the numbers of axes in `ranks` if there are any."""

    def take(value: Any) -> npt.NDArray[Any]:
        found = to_numpy(value)
        require(found.dtype.kind in kinds and found.size >= least)
        require(not ranks or found.ndim in ranks)
        return found

    axes = f" with {' or '.join(map(str, ranks))} {'axis' if ranks == (1,) else 'axes'}" if ranks else ""
    kind = "" if "c" in kinds else "real "
    return Rule(take, f"an array of {kind}numbers{axes}{', not empty' * bool(least)}")


def instance(class_name: str, *, of: str = "") -> Rule:
    """Allow objects of a class of this library; the class is given by name, so that nothing is imported."""
    return where(
        lambda value: any(each.__name__ == class_name for each in type(value).__mro__),
        f"a {class_name}{of and f', such as {of}'}",
    )


def _flag(value: Any) -> bool:
    require(isinstance(value, bool | np.bool_) or (isinstance(value, int) and value in (0, 1)))
    return bool(value)


def _text(value: Any) -> str:
    require(isinstance(value, str))
    return str(value)


def _mapping(value: Any) -> dict[str, Any]:
    return {_text(name): each for name, each in dict(value).items()}


def _names(value: Any) -> Any:
    return value if isinstance(value, str) else tuple(map(_text, value))


def _path(value: Any) -> Path:
    path = Path(os.fsdecode(value))
    names = [os.fsencode(name) for name in path.parts]
    require(names and all(len(name) <= _LONGEST_NAME and b"\0" not in name for name in names))
    return path


def _color(value: Any) -> str:
    """Convert a colour to hexadecimal, which every renderer reads."""
    if isinstance(value, str) and re.fullmatch("#[0-9a-fA-F]{6}", value):
        return value
    from matplotlib.colors import to_hex  # noqa: PLC0415 - a drawing library, needed only for colours

    return to_hex(value)


def _span(least: float | None, most: float | None) -> str:
    if least is not None and most is not None:
        return f" from {least:g} to {most:g}"
    return f", {least:g} or more" if least is not None else f", {most:g} at most" if most is not None else ""


flag = Rule(_flag, "True or False")
text = Rule(_text, "a text")
path = Rule(_path, "the path of a file or folder")
function = where(callable, "a function")
color = Rule(_color, "a colour, such as '#0072B2' or 'navy'")
names = Rule(_names, "a name, or several names")
mapping = Rule(_mapping, "a mapping of names")
interval = several(number(), pair=True)
rising = where(lambda ends: ends[0] < ends[1], "two finite numbers, the smaller one first", rule=interval)
