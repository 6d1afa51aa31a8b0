"""How a diagnosis is shown: tables, dicts and HTML from the same rows."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from typing import Any

import pandas as pd
import xarray as xr
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .findings import NOT_DEFINED, NOT_MEASURED, Answer, Evidence, Found, LayerDiagnosis
from .words import number, with_interval

QUESTIONS = ("reach", "share", "use")
_COLUMNS = ("layer", "question", "answer", "value", "low", "high", "n", "threshold", "reason")
LEFT = 'style="text-align:left"'


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
    """Everything as plain values."""
    return {
        "verdict": found.verdict.value,
        "text": " ".join(found.sentences),
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


def as_rich(found: Found) -> RenderableType:
    """Lay a diagnosis out for a terminal."""
    parts: list[RenderableType] = [Text(" ".join(found.sentences), style="bold")]
    if found.layers:
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        for name in _headings(found):
            table.add_column(name)
        for row in _rows(found):
            table.add_row(*map(Text, row))
        parts += [Text(), table]
    for heading, lines in _paragraphs(found):
        parts += [Text(), Text(heading), *(Text(f"  {line}") for line in lines)]
    return Group(*parts)


def as_html(found: Found) -> str:
    """Lay a diagnosis out for a notebook or a page."""
    parts = [f"<p><b>{html.escape(' '.join(found.sentences))}</b></p>"]
    if found.layers:
        head = "".join(f"<th {LEFT}>{html.escape(name)}</th>" for name in _headings(found))
        rows = "".join(
            f"<tr>{''.join(f'<td {LEFT}>{html.escape(cell)}</td>' for cell in row)}</tr>"
            for row in _rows(found)
        )
        parts.append(f"<table><tr>{head}</tr>{rows}</table>")
    for heading, lines in _paragraphs(found):
        items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
        parts.append(f"<p>{html.escape(heading)}</p><ul>{items}</ul>")
    return "".join(parts)


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
            if one.reason:
                told.setdefault((f"{question} {one.answer}", one.reason), []).append(path)
    return [f"{', '.join(paths)}, {answer}: {reason}" for (answer, reason), paths in sorted(told.items())]
