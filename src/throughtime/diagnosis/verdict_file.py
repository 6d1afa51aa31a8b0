"""A verdict that was written as JSON, as a diagnosis again: what `to_dict` wrote, `read_verdict` reads."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from throughtime._arguments import takes
from throughtime._arguments.rules import either, mapping, path
from throughtime._errors import DiagnosticError

from .diagnosis import Diagnosis
from .findings import NAN, Answer, Evidence, Found, LayerDiagnosis, Remedy, Verdict
from .render import FORMAT, QUESTIONS, SCHEMA, VERSION
from .training import History, Recorded, TrainingDiagnosis

Data = Mapping[str, Any]


@takes(DiagnosticError, source=either(mapping(), path))
def read_verdict(source: str | os.PathLike[str] | Data) -> Diagnosis:
    """Read a verdict that `to_dict` or `throughtime diagnose --json` wrote, for `compare` or a script.

    Parameters
    ----------
    source : path of a JSON file, or mapping
        The file, or what `json.load` returns of it.

    Returns
    -------
    Diagnosis
        Of a run a `TrainingDiagnosis`. Numbers that JSON has as null are NaN.

    Raises
    ------
    DiagnosticError
        The file cannot be read, is no verdict, lacks a part, or has a newer schema than this version reads.

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
        raise DiagnosticError(f"{file} cannot be read as JSON: {error}. Pass a verdict's file.") from None
    if not isinstance(data, Mapping):
        raise DiagnosticError(f"{file} holds a {type(data).__name__}; a verdict is a JSON object.")
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
        why=_evidence(data["why"]),
        remedies=tuple(
            Remedy(each["text"], each["evidence"], each["source"], each["name"]) for each in data["remedies"]
        ),
        notes=tuple(data["notes"]),
        loss=_number(data["loss"]),
        samples=data["samples"],
        stopped=data["stopped"],
    )


def _layer(data: Data) -> LayerDiagnosis:
    """Read a layer; of a record of a run it has no kind, verdict, curve and evidence."""
    answers = {question: _answer(data[question]) for question in QUESTIONS}
    low, high = map(_number, data["horizon_interval"])
    return LayerDiagnosis(
        kind=data.get("kind", ""),
        verdict=Verdict(data.get("verdict", Verdict.CANNOT_SAY)),
        **answers,
        why=_evidence(data.get("why", ())),
        curve=_curve(data.get("curve")),
        horizon=data["horizon"],
        horizon_interval=(low, high),
        k90=_number(data["k90"]),
    )


def _history(data: Data) -> History:
    records = tuple(
        Recorded(
            each["step"],
            _number(each["loss"]),
            {path: _layer(layer) for path, layer in each["layers"].items()},
            each["stopped"],
        )
        for each in data["records"]
    )
    return History(data["lag"], data["recorded"], records, tuple(data["trend"]))


def _answer(data: Data) -> Answer:
    low, high = map(_number, data["interval"])
    value, threshold = _number(data["value"]), _number(data["threshold"])
    return Answer(data["answer"], value, (low, high), data["n"], threshold, data["reason"])


def _evidence(data: Any) -> tuple[Evidence, ...]:
    return tuple(Evidence(each["name"], _number(each["value"]), each["text"]) for each in data)


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


def _number(value: float | None) -> float:
    return NAN if value is None else value
