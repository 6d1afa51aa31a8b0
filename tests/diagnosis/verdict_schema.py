"""Holds a diagnosis to the schema that ships: every key described, strict JSON, and read back the same."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator

import throughtime as tt

TEXT = (files("throughtime") / "diagnosis" / "verdict.v1.schema.json").read_text("utf-8")
SCHEMA = json.loads(TEXT)


def strict(schema: Any) -> Any:
    """The same schema, which also refuses keys that it does not describe."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(value) for key, value in schema.items()}
    # A part that others build upon is closed where it is used.
    if (
        "properties" in schema
        and "additionalProperties" not in schema
        and "horizon" not in schema["properties"]
    ):
        found["unevaluatedProperties"] = False
    return found


VALIDATOR = Draft202012Validator(strict(SCHEMA))


def check(found: Any) -> dict[str, Any]:
    """Return the verdict as JSON has it, after holding it to the schema."""
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    VALIDATOR.validate(told)
    again = tt.read_verdict(told)
    assert type(again) is type(found)
    assert again.to_dict() == told
    return told
