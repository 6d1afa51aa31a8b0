"""`compare`: two diagnoses side by side, with intervals of the changes."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from throughtime._common.text.tables import Paragraph, Part, Shown, Table
from throughtime._errors import DiagnosticError

from .diagnosis import Diagnosis
from .results import NAN, NO, UNCLEAR, YES, Answer
from .words import number, with_interval

_COLUMNS = ("layer", "question", "a", "b", "change", "low", "high", "differs")


@dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """Two diagnoses, a and b, question by question.

    Prints as a table in a terminal and a notebook: the ratio b/a of reach, and the difference b − a of share
    and use, which are fractions, each with a 95 % interval.

    Attributes
    ----------
    a, b : Diagnosis

    Examples
    --------
    >>> from throughtime import compare, diagnose, testing
    >>> slow, fast = (testing.decaying(rate=rate, samples=16) for rate in (0.9, 0.5))
    >>> found = compare(*(diagnose(tree, dependency_length=10) for tree in (slow, fast)))
    >>> found.to_dataframe().loc[0, ["question", "differs"]].tolist()
    ['reach', 'yes']
    """

    a: Diagnosis
    b: Diagnosis

    def to_dataframe(self) -> pd.DataFrame:
        """Return one row for each layer and question; `differs` is "yes" if the interval excludes 0 or ×1."""
        return pd.DataFrame([*_rows(self.a, self.b)], columns=_COLUMNS)

    def __parts__(self) -> Iterator[Part]:
        yield Paragraph(f"a: {self.a.text}")
        yield Paragraph(f"b: {self.b.text}")
        yield Table(tuple(self._table()), ("layer", "question", "a", "b", "change"))

    def _table(self) -> Iterator[tuple[str, ...]]:
        for layer, question, first, second, change, low, high, differs in _rows(self.a, self.b):
            sign = "×" if question == "reach" else "+"
            text = (
                f"{sign} {with_interval(change, (low, high))}" if not math.isnan(change) else "not measured"
            )
            yield layer, question, number(first), number(second), f"{text} ({differs})"


def compare(a: Diagnosis, b: Diagnosis) -> Comparison:
    """Compare two diagnoses, early and late in training or of two models.

    Layers are matched by path or, if their numbers are equal, by order. Only ratios and fractions are
    compared, because norms are not comparable between models.

    Parameters
    ----------
    a, b : Diagnosis
        Judged at the same lag: pass the same `dependency_length` to both.

    Returns
    -------
    Comparison
        Intervals combine those of both as for independent samples (Zou & Donner 2008, Statistics in Medicine
        27, 1693); they are wide if both used the same samples.

    Raises
    ------
    DiagnosticError
        The lags differ, or the diagnoses share no layer.

    Examples
    --------
    >>> from throughtime import diagnose, testing
    >>> early, late = (testing.decaying(rate=rate, samples=16) for rate in (0.5, 0.9))
    >>> found = compare(*(diagnose(tree, dependency_length=10) for tree in (early, late)))
    >>> round(float(found.to_dataframe().loc[0, "change"]))
    357
    """
    for one in (a, b):
        if not isinstance(one, Diagnosis):
            raise DiagnosticError(f"compare takes two diagnoses, got a {type(one).__name__}.")
    if a.lag != b.lag:
        raise DiagnosticError(
            f"a was judged at lag {a.lag}, b at lag {b.lag}: pass the same dependency_length to both."
        )
    if not _pairs(a, b):
        names = [", ".join(one.layers) or "none" for one in (a, b)]
        raise DiagnosticError(f"No layer of a ({names[0]}) is a layer of b ({names[1]}).")
    return Comparison(a, b)


def _pairs(a: Diagnosis, b: Diagnosis) -> list[tuple[str, str]]:
    shared = [(path, path) for path in a.layers if path in b.layers]
    if shared or len(a.layers) != len(b.layers):
        return shared
    return list(zip(a.layers, b.layers, strict=True))


def _rows(a: Diagnosis, b: Diagnosis) -> Iterator[tuple[str, str, float, float, float, float, float, str]]:
    for one, other in _pairs(a, b):
        layer = one if one == other else f"{one} → {other}"
        for question, first in a.layers[one].answers.items():
            second = b.layers[other].answers[question]
            is_ratio = question == "reach"
            change, low, high = _log_change(first, second) if is_ratio else _change(first, second)
            yield layer, question, first.value, second.value, change, low, high, _differs(low, high, is_ratio)


def _change(first: Answer, second: Answer) -> tuple[float, float, float]:
    """Return the difference of two estimates with its interval, from the intervals of both."""
    change = second.value - first.value
    below = (second.value - second.interval[0], first.interval[1] - first.value)
    above = (second.interval[1] - second.value, first.value - first.interval[0])
    return change, change - math.hypot(*below), change + math.hypot(*above)


def _log_change(first: Answer, second: Answer) -> tuple[float, float, float]:
    if not (first.value > 0 and second.value > 0):
        return NAN, NAN, NAN
    change, low, high = _change(_log(first), _log(second))
    return math.exp(change), math.exp(low), math.exp(high)


def _log(one: Answer) -> Answer:
    low, high = (math.log(end) if end > 0 else NAN for end in one.interval)
    return Answer(one.answer, math.log(one.value), (low, high))


def _differs(low: float, high: float, is_ratio: bool) -> str:
    if math.isnan(low) or math.isnan(high):
        return UNCLEAR
    none = 1.0 if is_ratio else 0.0
    return NO if low <= none <= high else YES
