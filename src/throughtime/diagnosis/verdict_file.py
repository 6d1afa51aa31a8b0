"""`read_verdict`: reads the JSON that `to_dict` wrote as a diagnosis."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from throughtime._errors import DiagnosticError
from throughtime._inputs import takes
from throughtime._inputs.rules import either, mapping, path

from .diagnosis import FORMAT, QUESTIONS, SCHEMA, VERSION, Diagnosis
from .results import NAN, Answer, Evidence, LayerDiagnosis, Remedy, Verdict
from .training import History, StepRecord, TrainingDiagnosis

Data = Mapping[str, Any]
Made = TypeVar("Made")


@takes(DiagnosticError, source=either(mapping, path))
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
    data = source if isinstance(source, Mapping) else _load(Path(source))
    _check_version(data.get("schema"))
    try:
        return _read_diagnosis(data)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DiagnosticError(
            f"This verdict does not follow {SCHEMA}: {type(error).__name__} {error}. Write it again with "
            "to_dict() or throughtime diagnose --json."
        ) from None


def _load(file: Path) -> Data:
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


def _read_diagnosis(data: Data) -> Diagnosis:
    read: dict[str, Any] = {
        **dict.fromkeys(("lag", "dependency_length", "is_solved"), lambda value: value),  # None is a value
        "verdict": Verdict,
        "layers": _layers,
        "use_curve": _curve,
        "why": _evidence,
        "remedies": lambda remedies: tuple(_make(Remedy, each) for each in remedies),
    }
    kind, absent = Diagnosis, ("framework", "is_solved")
    if "history" in data:
        kind, read = TrainingDiagnosis, {**read, "step": int, "history": _history}
    return _make(kind, {"sentences": [data["text"]], **data}, absent, **read)


def _layers(layers: Data) -> dict[str, LayerDiagnosis]:
    """Read layers; those in a record of a run have no kind, verdict, curve and evidence."""
    read: dict[str, Any] = dict.fromkeys(QUESTIONS, lambda answer: _make(Answer, answer))
    read |= {"why": _evidence, "curve": _curve, "verdict": Verdict}
    return {
        path: _make(LayerDiagnosis, {"kind": "", **layer}, ("why", "curve", "verdict"), **read)
        for path, layer in layers.items()
    }


def _evidence(evidence: Any) -> tuple[Evidence, ...]:
    return tuple(_make(Evidence, each) for each in evidence)


def _history(data: Data) -> History:
    records = tuple(_make(StepRecord, each, layers=_layers) for each in data["records"])
    return _make(History, data, records=lambda _: records)


def _make(kind: type[Made], data: Data, absent: Collection[str] = (), **read: Callable[[Any], Any]) -> Made:
    """Make a record from its fields, each with its reader; only those in `absent` may be missing."""
    names = [each.name for each in fields(kind) if each.name in data or each.name not in absent]  # type: ignore[arg-type]
    return kind(**{name: read.get(name, _value)(data[name]) for name in names})


def _value(value: Any) -> Any:
    """Read null as NaN and a list as a tuple."""
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
