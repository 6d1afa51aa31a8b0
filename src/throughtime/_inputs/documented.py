"""Completes docstrings by signature and argument rules: the type of the result, and the errors."""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from throughtime._errors import (
    DiagnosticError,
    LayerNotFoundError,
    SchemaError,
    ThroughTimeError,
    UnsupportedModelError,
)
from throughtime._inputs.rules import Rule

_SECTION = re.compile(r"^(?=\w[\w ]*\n-+$)", re.MULTILINE)
_BEFORE = ("Parameters", "Attributes", "Returns", "Yields")  # sections that precede that of errors
_HEADING = "Raises\n------\n"
_ARGUMENT = "An argument is not as described above."
_REASONS: Mapping[type[ThroughTimeError], str] = {
    DiagnosticError: "The layer's certificate exceeds its limit, or an argument is not as described above.",
    LayerNotFoundError: "The model has no such layer.",
    SchemaError: "The layer lacks a variable, differs from a capture in its layout, or is not the only one.",
    UnsupportedModelError: "No adapter knows the model, or `adapter` has no `Probe`.",
}


def complete(function: Callable[..., Any], error: type[ThroughTimeError], rules: Mapping[str, Rule]) -> None:
    """Complete the docstring of a function or class: its result, and errors that it does not name itself.

    A function that takes a layer also raises `error` for what it finds in it.
    """
    if not function.__doc__:  # python -OO
        return
    summary, *sections = _SECTION.split(inspect.cleandoc(function.__doc__))
    result = inspect.get_annotations(function).get("return", "None")
    if result != "None" and not any(section.startswith("Returns\n") for section in sections):
        after = sum(section.startswith("Parameters\n") for section in sections)
        kind = re.sub(r"\b[\w.]+\.(?=[A-Z])", "", result)  # without its module
        sections.insert(after, f"Returns\n-------\n{kind}\n\n")
    errors = [rule.error or error for rule in rules.values()]
    if any(rule.explain for rule in rules.values()):
        errors += [error, SchemaError]
    place = sum(section.startswith(_BEFORE) for section in sections)
    if errors and not "".join(sections[place:]).startswith(_HEADING):
        sections.insert(place, _HEADING)
    for each in dict.fromkeys(errors):
        if not re.search(rf"\b{each.__name__}\b", sections[place]):
            reason = _REASONS.get(each, _ARGUMENT)
            sections[place] = f"{sections[place].rstrip()}\n{each.__name__}\n    {reason}\n\n"
    function.__doc__ = "".join([f"{summary.rstrip()}\n\n", *sections]).rstrip()
