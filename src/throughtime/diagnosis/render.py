"""How a diagnosis is shown: tables, dicts, and the parts of its text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd
import xarray as xr

from throughtime._text.tables import Items, Paragraph, Part, Table

from .fail_on import findings
from .findings import NO, NOT_DEFINED, NOT_MEASURED, Answer, Evidence, Found, LayerDiagnosis
from .words import number, with_interval

FORMAT, VERSION = "throughtime.verdict.v", 1
SCHEMA = f"{FORMAT}{VERSION}"  # verdict.v1.schema.json beside this file
QUESTIONS = ("reach", "share", "use")
_COLUMNS = ("layer", "question", "answer", "value", "low", "high", "n", "threshold", "reason")


def as_dataframe(found: Found) -> pd.DataFrame:
    """One row a layer and question."""
    rows = []
    for path, layer in found.layers.items():
        for question in QUESTIONS:
            one: Answer = getattr(layer, question)
            rows.append(
                (path, question, one.answer, one.value, *one.interval, one.n, one.threshold, one.reason)
            )
    return pd.DataFrame(rows, columns=_COLUMNS)


def as_dict(found: Found) -> dict[str, Any]:
    """Everything as plain values, by the schema."""
    return {
        "schema": SCHEMA,
        "verdict": found.verdict.value,
        "text": " ".join(found.sentences),
        "findings": findings(found),
        "stopped": found.stopped,
        "lag": found.lag,
        "dependency_length": found.dependency_length,
        "loss": plain(found.loss),
        "samples": found.samples,
        "layers": {path: _layer(layer) for path, layer in found.layers.items()},
        "use_curve": _curve(found.use_curve),
        "why": [_evidence(each) for each in found.why],
        "remedies": [vars(each).copy() for each in found.remedies],
        "notes": list(found.notes),
    }


def layer_at_step(layer: LayerDiagnosis) -> dict[str, Any]:
    """Answers of one layer as plain values."""
    return {
        **{question: _answer(getattr(layer, question)) for question in QUESTIONS},
        "horizon": layer.horizon,
        "horizon_interval": [plain(end) for end in layer.horizon_interval],
        "k90": plain(layer.k90),
    }


def _layer(layer: LayerDiagnosis) -> dict[str, Any]:
    return {
        "kind": layer.kind,
        "verdict": layer.verdict.value,
        **layer_at_step(layer),
        "curve": _curve(layer.curve),
        "why": [_evidence(each) for each in layer.why],
    }


def _answer(one: Answer) -> dict[str, Any]:
    return {
        "answer": one.answer,
        "value": plain(one.value),
        "interval": [plain(end) for end in one.interval],
        "n": one.n,
        "threshold": plain(one.threshold),
        "reason": one.reason,
    }


def _evidence(one: Evidence) -> dict[str, Any]:
    return {"name": one.name, "value": plain(one.value), "text": one.text}


def _curve(curve: xr.Dataset | None) -> dict[str, list[Any]] | None:
    if curve is None:
        return None
    names = ("lag", "ratio", "use", "low", "high", "answer", "samples")
    return {name: [plain(each) for each in curve[name].values.tolist()] for name in names if name in curve}


def plain(value: Any) -> Any:
    """Make a number that JSON knows: None where it is not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def parts(found: Found) -> Iterator[Part]:
    """List what a diagnosis says."""
    yield Paragraph(" ".join(found.sentences), bold=True)
    if found.layers:
        yield Table(tuple(_rows(found)), _headings(found))
    for heading, lines in _paragraphs(found):
        yield Items(heading, tuple(lines))


def _headings(found: Found) -> tuple[str, ...]:
    return "layer", f"reach R({found.lag})", f"share of lags ≥ {found.lag}", f"use U({found.lag})", "horizon"


def _rows(found: Found) -> Iterator[tuple[str, ...]]:
    for path, layer in found.layers.items():
        yield path, *(told(getattr(layer, question)) for question in QUESTIONS), layer.horizon


def told(one: Answer) -> str:
    """Write an answer with its value and interval."""
    if one.answer in (NOT_MEASURED, NOT_DEFINED):
        return one.answer
    if not one.n:  # a value without samples of its own
        return number(one.value)
    return f"{one.answer}: {with_interval(one.value, one.interval)}"


def _paragraphs(found: Found) -> Iterator[tuple[str, list[str]]]:
    for path, layer in found.layers.items():
        if layer.why:
            yield f"Why, {path}", [each.text for each in layer.why]
    if found.remedies:
        yield (
            "What may help",
            [f"{each.text}. Because {each.evidence} ({each.source})" for each in found.remedies],
        )
    notes = [*found.notes, *_reasons(found)]
    if not math.isnan(found.loss):
        over = f" over {found.samples} samples" if found.samples else ""
        notes.append(f"Mean loss {number(found.loss)}{over}.")
    if notes:
        yield "Notes", notes


def _reasons(found: Found) -> list[str]:
    """Say why an answer is unclear or missing, each reason once for all layers that it holds of."""
    told: dict[tuple[str, str], list[str]] = {}
    for path, layer in found.layers.items():
        for question in QUESTIONS:
            one: Answer = getattr(layer, question)
            if one.reason and one.answer != NO:  # that is in the verdict
                told.setdefault((f"{question} {one.answer}", one.reason), []).append(path)
    return [f"{', '.join(paths)}, {answer}: {reason}" for (answer, reason), paths in sorted(told.items())]
