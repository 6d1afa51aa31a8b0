"""`read_verdict`: reads the JSON that `to_dict` wrote as a diagnosis."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from throughtime._arguments import takes
from throughtime._arguments.rules import either, mapping, path
from throughtime._errors import DiagnosticError

from .diagnosis import Diagnosis
from .findings import NAN, Answer, Evidence, Found, LayerDiagnosis, Remedy, Verdict
from .render import FORMAT, QUESTIONS, SCHEMA, VERSION
from .training import History, StepRecord, TrainingDiagnosis

Data = Mapping[str, Any]
Made = TypeVar("Made")


@takes(DiagnosticError, source=either(mapping(), path))
def read_verdict(source: str | os.PathLike[str] | Data) -> Diagnosis:
    """Read a verdict that `to_dict` or `throughtime diagnose --json` wrote, for `compare` or a script.

    Parameters
    ----------
    source : path of a JSON file, or mapping
        The file, or its content as `json.load` returns it.

    Returns
    -------
    Diagnosis
        For a run a `TrainingDiagnosis`. Numbers that are null in JSON are NaN.

    Raises
    ------
    DiagnosticError
        The file cannot be read, is not a verdict, lacks a part, or has a newer schema than this version.

    Examples
    --------
    >>> from throughtime import diagnose, testing
    >>> found = diagnose(testing.decaying(rate=0.9, samples=16), dependency_length=20)
    >>> read_verdict(found.to_dict()).layers["rnn"].reach.answer
    'yes'
    """
    data = source if isinstance(source, Mapping) else _loaded(Path(source))
    _check_version(data.get("schema"))
    try:
        found = _found(data)
        if "history" not in data:
            return Diagnosis(**vars(found))
        return TrainingDiagnosis(**vars(found), step=int(data["step"]), history=_history(data["history"]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DiagnosticError(
            f"This verdict does not follow {SCHEMA}: {type(error).__name__} {error}. Write it again with "
            "to_dict() or throughtime diagnose --json."
        ) from None


def _loaded(file: Path) -> Data:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DiagnosticError(
            f"{file} cannot be read as JSON: {error}. Pass the file of a verdict."
        ) from None
    if not isinstance(data, Mapping):
        raise DiagnosticError(f"{file} contains a {type(data).__name__}; a verdict is a JSON object.")
    return data


def _check_version(schema: Any) -> None:
    match = re.fullmatch(rf"{re.escape(FORMAT)}([1-9]\d*)", str(schema))
    if match is None:
        raise DiagnosticError(f"schema={schema!r}: expected {SCHEMA!r}, which to_dict() writes.")
    if int(match[1]) != VERSION:
        raise DiagnosticError(
            f"This verdict has the schema {schema}; this version of throughtime reads {SCHEMA}. Install a "
            "newer one: pip install -U throughtime."
        )


def _found(data: Data) -> Found:
    return Found(
        verdict=Verdict(data["verdict"]),
        sentences=(data["text"],),
        lag=data["lag"],
        dependency_length=data["dependency_length"],
        layers={path: _layer(layer) for path, layer in data["layers"].items()},
        use_curve=_curve(data["use_curve"]),
        why=tuple(_made(Evidence, each) for each in data["why"]),
        remedies=tuple(_made(Remedy, each) for each in data["remedies"]),
        notes=tuple(data["notes"]),
        loss=_value(data["loss"]),
        samples=data["samples"],
        stopped=data["stopped"],
    )


def _layer(data: Data) -> LayerDiagnosis:
    """Read a layer; in a record of a run it has no kind, verdict, curve and evidence."""
    answers = {question: _made(Answer, data[question]) for question in QUESTIONS}
    return LayerDiagnosis(
        kind=data.get("kind", ""),
        verdict=Verdict(data.get("verdict", Verdict.CANNOT_SAY)),
        reach=answers["reach"],
        share=answers["share"],
        use=answers["use"],
        why=tuple(_made(Evidence, each) for each in data.get("why", ())),
        curve=_curve(data.get("curve")),
        horizon=data["horizon"],
        horizon_interval=_value(data["horizon_interval"]),
        k90=_value(data["k90"]),
    )


def _history(data: Data) -> History:
    records = tuple(
        StepRecord(
            each["step"],
            _value(each["loss"]),
            {path: _layer(layer) for path, layer in each["layers"].items()},
            each["stopped"],
        )
        for each in data["records"]
    )
    return History(data["lag"], data["recorded"], records, tuple(data["trend"]))


def _made(kind: type[Made], data: Data) -> Made:
    """Make a record from its fields, of which each has to be there; null is NaN and a list a tuple."""
    return kind(**{each.name: _value(data[each.name]) for each in fields(kind)})  # type: ignore[arg-type]


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_value, value))
    return NAN if value is None else value


def _curve(data: Data | None) -> xr.Dataset | None:
    if data is None:
        return None
    types: dict[str, Any] = {"answer": object, "samples": int}
    variables = {
        name: ("lag", np.array(values, types.get(name, float)))  # null becomes NaN
        for name, values in data.items()
        if name != "lag"
    }
    return xr.Dataset(variables, coords={"lag": data["lag"]})
