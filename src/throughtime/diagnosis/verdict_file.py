"""`read_verdict`: reads the JSON that `to_dict` wrote as a diagnosis."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import xarray as xr

from throughtime._errors import DiagnosticError
from throughtime._inputs import takes
from throughtime._inputs.rules import either, mapping, path

from .diagnosis import FORMAT, SCHEMA, VERSION, Diagnosis
from .results import NAN, LayerDiagnosis, Verdict
from .training import TrainingDiagnosis

Data = Mapping[str, Any]
_MAY_LACK: Mapping[Any, Collection[str]] = {
    **dict.fromkeys((Diagnosis, TrainingDiagnosis), ("framework", "is_solved")),
    LayerDiagnosis: ("why", "curve", "verdict", "is_cell"),  # in a record of a run, or an older file
}
_IN_JSON: Mapping[Any, Any] = {  # others are objects
    **{kind: kind for kind in (bool, int, str)},
    float: (int, float),
    tuple: (list, tuple),
    Verdict: str,
}


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
        found: Diagnosis = _read_fields(
            TrainingDiagnosis if "history" in data else Diagnosis, {"sentences": [data["text"]], **data}
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DiagnosticError(
            f"This verdict does not follow {SCHEMA}: {type(error).__name__} {error}. Write it again with "
            "to_dict() or throughtime diagnose --json."
        ) from None
    return found


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


def _read(kind: Any, value: Any) -> Any:
    """Read JSON as the type of a field; null is None where the type allows it, NaN for numbers."""
    choices = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    if value is None and (NoneType in choices or kind is float):
        return None if NoneType in choices else NAN
    kind, parts = get_origin(choices[0]) or choices[0], get_args(choices[0])
    if not isinstance(value, _IN_JSON.get(kind, Mapping)):
        raise TypeError(f"{value!r} is not of the type {kind.__name__}")
    if is_dataclass(kind):
        return _read_fields(kind, value)
    if kind is tuple:
        return tuple(_read(parts[0], each) for each in value)
    if kind is Mapping:
        return {key: _read(parts[1], each) for key, each in value.items()}
    if kind is xr.Dataset:
        return _curve(value)
    return Verdict(value) if kind is Verdict else value


def _read_fields(kind: Any, data: Data) -> Any:
    """Make a record from its fields; only those in `_MAY_LACK` may be missing."""
    types, may_lack = get_type_hints(kind), _MAY_LACK.get(kind, ())
    data = {"kind": "", **data}  # a layer in a record of a run has none
    names = [each.name for each in fields(kind) if each.name in data or each.name not in may_lack]
    return kind(**{name: _read(types[name], data[name]) for name in names})


def _curve(data: Data) -> xr.Dataset:
    types: dict[str, Any] = {"answer": object, "samples": int}
    variables = {
        name: ("lag", np.array(values, types.get(name, float)))  # null becomes NaN
        for name, values in data.items()
        if name != "lag"
    }
    return xr.Dataset(variables, coords={"lag": data["lag"]})
