"""`Diagnosis`: the results as text, as data, in a terminal and in a notebook."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from typing import Any

import pandas as pd
import xarray as xr

from throughtime._common.text.tables import Items, Paragraph, Part, Shown, Table

from .brief import Brief
from .fail_on import findings
from .results import NO, NOT_DEFINED, NOT_MEASURED, QUESTIONS, Answer, LayerDiagnosis, Results
from .words import number, with_interval

FORMAT, VERSION = "throughtime.verdict.v", 1
SCHEMA = f"{FORMAT}{VERSION}"  # verdict.v1.schema.json beside this file
REMEDIES = "Possible remedies"
_COLUMNS = ("layer", "question", "answer", "value", "low", "high", "n", "threshold", "reason")
_AS_THEY_ARE = (
    *("lag", "dependency_length", "loss", "is_solved", "samples", "layers", "use_curve", "why"),
    *("remedies", "notes"),
)  # in JSON, after the verdict


def layer_at_step(layer: LayerDiagnosis) -> dict[str, Any]:
    """Return the answers of one layer as plain values."""
    return {name: plain(getattr(layer, name)) for name in (*QUESTIONS, "horizon", "horizon_interval", "k90")}


def plain(value: Any) -> Any:
    """Convert records, curves and numbers to values of JSON; numbers that are not finite become None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, xr.Dataset):
        names = ("lag", "ratio", "use", "low", "high", "answer", "samples")
        return {name: plain(value[name].values.tolist()) for name in names if name in value}
    if is_dataclass(value):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def parts(found: Results) -> Iterator[Part]:
    """Yield the parts of the text of a diagnosis."""
    yield Paragraph(" ".join(found.sentences), bold=True)
    if found.layers:
        lag = found.lag
        rows = (
            (path, *map(cell, layer.answers.values()), layer.horizon) for path, layer in found.layers.items()
        )
        yield Table(
            tuple(rows), ("layer", f"reach R({lag})", f"share of lags ≥ {lag}", f"use U({lag})", "horizon")
        )
    for heading, lines in _paragraphs(found):
        yield Items(heading, tuple(lines))


def cell(one: Answer) -> str:
    """Format an answer with its value and interval."""
    if one.answer in (NOT_MEASURED, NOT_DEFINED):
        return one.answer
    if not one.n:  # a value without a number of samples
        return number(one.value)
    return f"{one.answer}: {with_interval(one.value, one.interval)}"


def _paragraphs(found: Results) -> Iterator[tuple[str, list[str]]]:
    for path, layer in found.layers.items():
        if layer.why:
            yield f"Why, {path}", [each.text for each in layer.why]
    if found.remedies:
        yield (REMEDIES, [f"{each.text}. Because {each.evidence} ({each.source})" for each in found.remedies])
    notes = [*found.notes, *_reasons(found)]
    if not math.isnan(found.loss):
        over = f" over {found.samples} sample{'s' * (found.samples > 1)}" if found.samples else ""
        notes.append(f"Loss {number(found.loss)}{over}.")
    if notes:
        yield "Notes", notes


def _reasons(found: Results) -> list[str]:
    """List the reasons of unclear or missing answers, each once for all its layers."""
    found_in: dict[tuple[str, str], list[str]] = {}
    for path, layer in found.layers.items():
        for question, one in layer.answers.items():
            if one.reason and one.answer != NO:  # the verdict contains it
                found_in.setdefault((f"{question} {one.answer}", one.reason), []).append(path)
    return [f"{', '.join(paths)}, {answer}: {reason}" for (answer, reason), paths in sorted(found_in.items())]


@dataclass(frozen=True, repr=False)
class Diagnosis(Shown, Results):
    """Whether a model uses inputs some steps back, whether gradient reaches them, and why.

    Prints as a report in a terminal and a notebook.

    Attributes
    ----------
    verdict : Verdict
    text : str
        The verdict in words.
    lag : int
        The judged lag: `dependency_length`, or else the largest for which use was found, or else 1. If use
        was not measured, it is the largest of 1, 2, 4, … within half of the window.
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
        That which the loss function returns for the batch; the mean over several batches.
    samples : int
    stopped : str
        See `Results`.

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
        return {
            "schema": SCHEMA,
            "verdict": self.verdict.value,
            "text": self.text,
            "findings": findings(self),
            "stopped": self.stopped,
            **{name: plain(getattr(self, name)) for name in _AS_THEY_ARE},
        }

    def to_dataframe(self) -> pd.DataFrame:
        """Return one row for each layer and question: answer, value, low, high, n, threshold, reason."""
        rows = [
            (path, question, one.answer, one.value, *one.interval, one.n, one.threshold, one.reason)
            for path, layer in self.layers.items()
            for question, one in layer.answers.items()
        ]
        return pd.DataFrame(rows, columns=_COLUMNS)

    def __parts__(self) -> Iterator[Part]:
        return parts(self)
