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

from throughtime._errors import DiagnosticError

from .diagnosis import Diagnosis
from .findings import NAN, Answer, Evidence, Found, LayerDiagnosis, Remedy, Verdict
from .render import FORMAT, QUESTIONS, SCHEMA, VERSION
from .training import History, Recorded, TrainingDiagnosis

Told = Mapping[str, Any]


def read_verdict(source: str | os.PathLike[str] | Told) -> Diagnosis:
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
    told = source if isinstance(source, Mapping) else _loaded(Path(source))
    _check_version(told.get("schema"))
    try:
        found = _found(told)
        if "history" not in told:
            return Diagnosis(**vars(found))
        return TrainingDiagnosis(**vars(found), step=int(told["step"]), history=_history(told["history"]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DiagnosticError(
            f"This verdict does not follow {SCHEMA}: {type(error).__name__} {error}. Write it again with "
            "to_dict() or throughtime diagnose --json."
        ) from None


def _loaded(path: Path) -> Told:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DiagnosticError(f"{path} cannot be read as JSON: {error}. Pass a verdict's file.") from None
    if not isinstance(told, Mapping):
        raise DiagnosticError(f"{path} holds a {type(told).__name__}; a verdict is a JSON object.")
    return told


def _check_version(schema: Any) -> None:
    match = re.fullmatch(rf"{re.escape(FORMAT)}([1-9]\d*)", str(schema))
    if match is None:
        raise DiagnosticError(f"schema={schema!r}: expected {SCHEMA!r}, which to_dict() writes.")
    if int(match[1]) != VERSION:
        raise DiagnosticError(
            f"This verdict has the schema {schema}; this version of throughtime reads {SCHEMA}. Install a "
            "newer one: pip install -U throughtime."
        )


def _found(told: Told) -> Found:
    return Found(
        verdict=Verdict(told["verdict"]),
        sentences=(told["text"],),
        lag=told["lag"],
        dependency_length=told["dependency_length"],
        layers={path: _layer(layer) for path, layer in told["layers"].items()},
        use_curve=_curve(told["use_curve"]),
        why=_evidence(told["why"]),
        remedies=tuple(Remedy(each["text"], each["evidence"], each["source"]) for each in told["remedies"]),
        notes=tuple(told["notes"]),
        loss=_number(told["loss"]),
        samples=told["samples"],
        stopped=told["stopped"],
    )


def _layer(told: Told) -> LayerDiagnosis:
    """Read a layer; of a record of a run it has no kind, verdict, curve and evidence."""
    answers = {question: _answer(told[question]) for question in QUESTIONS}
    low, high = map(_number, told["horizon_interval"])
    return LayerDiagnosis(
        kind=told.get("kind", ""),
        verdict=Verdict(told.get("verdict", Verdict.CANNOT_SAY)),
        **answers,
        why=_evidence(told.get("why", ())),
        curve=_curve(told.get("curve")),
        horizon=told["horizon"],
        horizon_interval=(low, high),
        k90=_number(told["k90"]),
    )


def _history(told: Told) -> History:
    records = tuple(
        Recorded(
            each["step"],
            _number(each["loss"]),
            {path: _layer(layer) for path, layer in each["layers"].items()},
            each["stopped"],
        )
        for each in told["records"]
    )
    return History(told["lag"], told["recorded"], records, tuple(told["trend"]))


def _answer(told: Told) -> Answer:
    low, high = map(_number, told["interval"])
    value, threshold = _number(told["value"]), _number(told["threshold"])
    return Answer(told["answer"], value, (low, high), told["n"], threshold, told["reason"])


def _evidence(told: Any) -> tuple[Evidence, ...]:
    return tuple(Evidence(each["name"], _number(each["value"]), each["text"]) for each in told)


def _curve(told: Told | None) -> xr.Dataset | None:
    if told is None:
        return None
    types: dict[str, Any] = {"answer": object, "samples": int}
    variables = {
        name: ("lag", np.array(values, types.get(name, float)))  # null becomes NaN
        for name, values in told.items()
        if name != "lag"
    }
    return xr.Dataset(variables, coords={"lag": told["lag"]})


def _number(value: float | None) -> float:
    return NAN if value is None else value
