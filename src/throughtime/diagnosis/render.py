"""Converts a diagnosis to tables, dicts and the parts of its text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import StrEnum
from typing import Any

import pandas as pd
import xarray as xr

from throughtime._text.tables import Items, Paragraph, Part, Table

from .fail_on import findings
from .findings import NO, NOT_DEFINED, NOT_MEASURED, Answer, Found, LayerDiagnosis
from .words import number, with_interval

FORMAT, VERSION = "throughtime.verdict.v", 1
SCHEMA = f"{FORMAT}{VERSION}"  # verdict.v1.schema.json beside this file
REMEDIES = "Possible remedies"
QUESTIONS = ("reach", "share", "use")
_COLUMNS = ("layer", "question", "answer", "value", "low", "high", "n", "threshold", "reason")


def as_dataframe(found: Found) -> pd.DataFrame:
    """Return one row for each layer and question."""
    rows = []
    for path, layer in found.layers.items():
        for question in QUESTIONS:
            one: Answer = getattr(layer, question)
            rows.append(
                (path, question, one.answer, one.value, *one.interval, one.n, one.threshold, one.reason)
            )
    return pd.DataFrame(rows, columns=_COLUMNS)


def as_dict(found: Found) -> dict[str, Any]:
    """Return everything as plain values, by the schema."""
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
        "layers": plain(found.layers),
        "use_curve": plain(found.use_curve),
        "why": plain(found.why),
        "remedies": plain(found.remedies),
        "notes": list(found.notes),
    }


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


def parts(found: Found) -> Iterator[Part]:
    """Yield the parts of the text of a diagnosis."""
    yield Paragraph(" ".join(found.sentences), bold=True)
    if found.layers:
        lag = found.lag
        rows = (
            (path, *(cell(getattr(layer, question)) for question in QUESTIONS), layer.horizon)
            for path, layer in found.layers.items()
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


def _paragraphs(found: Found) -> Iterator[tuple[str, list[str]]]:
    for path, layer in found.layers.items():
        if layer.why:
            yield f"Why, {path}", [each.text for each in layer.why]
    if found.remedies:
        yield (
            REMEDIES,
            [f"{each.text}. Because {each.evidence} ({each.source})" for each in found.remedies],
        )
    notes = [*found.notes, *_reasons(found)]
    if not math.isnan(found.loss):
        over = f" over {found.samples} samples" if found.samples else ""
        notes.append(f"Mean loss {number(found.loss)}{over}.")
    if notes:
        yield "Notes", notes


def _reasons(found: Found) -> list[str]:
    """List the reasons of unclear or missing answers, each once for all its layers."""
    found_in: dict[tuple[str, str], list[str]] = {}
    for path, layer in found.layers.items():
        for question in QUESTIONS:
            one: Answer = getattr(layer, question)
            if one.reason and one.answer != NO:  # the verdict contains it
                found_in.setdefault((f"{question} {one.answer}", one.reason), []).append(path)
    return [f"{', '.join(paths)}, {answer}: {reason}" for (answer, reason), paths in sorted(found_in.items())]
