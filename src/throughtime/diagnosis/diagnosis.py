"""`Diagnosis`: the results as text, as data, in a terminal and in a notebook."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from throughtime._text.tables import Part, Shown

from . import render
from .brief import Brief
from .findings import Found


@dataclass(frozen=True, repr=False)
class Diagnosis(Shown, Found):
    """Whether a model uses inputs some steps back, whether gradient reaches them, and why.

    Prints as a report in a terminal and a notebook.

    Attributes
    ----------
    verdict : Verdict
    text : str
        The verdict in words.
    lag : int
        The judged lag: `dependency_length`, or else the largest for which use was found, or else 1.
    layers : mapping of str to LayerDiagnosis
        Each with `reach`, `share`, `use` and `why`; `path[forward]` and `path[backward]` if a layer has two
        directions.
    use_curve : Dataset (lag) or None
        U at lags 1, 2, 4, …
    why : tuple of Evidence
        Evidence of the layer that decided.
    remedies : tuple of Remedy
    notes : tuple of str
    loss : float
        Mean over samples.
    samples : int
    stopped : str
        See `Found`.

    Examples
    --------
    >>> from throughtime import diagnose, testing
    >>> found = diagnose(testing.decaying(rate=0.5, samples=16), dependency_length=20)
    >>> found.verdict.value, found.layers["rnn"].reach.answer
    ('cannot_say', 'no')
    """

    @property
    def text(self) -> str:
        """The verdict in words."""
        return " ".join(self.sentences)

    @property
    def brief(self) -> Brief:
        """The verdict, reach, use, horizon and next actions, with code to paste; prints in a few lines."""
        return Brief(self)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings, lists and dicts, by `throughtime.verdict.v1`; NaN becomes None."""
        return render.as_dict(self)

    def to_dataframe(self) -> pd.DataFrame:
        """Return one row for each layer and question: answer, value, low, high, n, threshold, reason."""
        return render.as_dataframe(self)

    def __parts__(self) -> Iterable[Part]:
        return render.parts(self)
