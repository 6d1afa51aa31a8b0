"""Docstrings name the errors that a public function raises.

Counted are the errors of the rules that `takes` gives a function, and those raised by name in the function,
in what it uses of its module, and in functions that these import by name.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest

import throughtime as tt
from throughtime import _errors
from throughtime._inputs import takes
from throughtime._tree import Layer

ERRORS = {name for name, each in vars(_errors).items() if isinstance(each, type) and name.endswith("Error")}
HOMES = {f"{name}.": getattr(tt, name) for name in ("plots", "diagnostics", "picture", "loggers", "testing")}


def functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    for prefix, home in {"": tt, **HOMES}.items():
        for name in dir(home):
            each = getattr(home, name)
            is_ours = str(getattr(each, "__module__", "")).startswith("throughtime.")
            if callable(each) and is_ours and name not in ERRORS:
                yield prefix + name, each


@cache
def definitions(module: str) -> dict[str, ast.AST]:
    if not module.startswith("throughtime."):
        return {}
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {each.name: each for each in tree.body if isinstance(each, ast.FunctionDef | ast.ClassDef)}


def raised(module: str, name: str, *, imported: bool = True) -> set[str]:
    """List the errors that a function raises by name."""
    found: set[str] = set()
    names = [name]
    for each in names:  # it grows
        tree = definitions(module)[each]
        fields = [node.annotation for node in ast.walk(tree) if isinstance(node, ast.AnnAssign)]
        types = {node for field in fields for node in ast.walk(field)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Raise) and node.exc is not None:
                found |= {part.id for part in ast.walk(node.exc) if isinstance(part, ast.Name)} & ERRORS
            if not isinstance(node, ast.Name) or node.id in names or node in types:
                continue
            used = getattr(sys.modules[module], node.id, None)
            is_followed = imported and inspect.isfunction(used) and used is not takes
            if node.id in definitions(module):
                names.append(node.id)
            elif is_followed and used.__name__ in definitions(used.__module__):
                found |= raised(used.__module__, used.__name__, imported=False)
    return found


def at_the_border(function: Callable[..., Any]) -> set[str]:
    """List the errors of the rules that a function's arguments have."""
    checked = function.__init__ if isinstance(function, type) else function
    if not hasattr(checked, "__wrapped__"):
        return set()
    around = inspect.getclosurevars(checked).nonlocals
    rules = around["known"].values()
    return {(rule.error or around["error"]).__name__ for rule in rules} | (
        {"SchemaError"} if any(rule.explain for rule in rules) else set()
    )


def documented(function: Callable[..., Any]) -> set[str]:
    section = re.search(
        r"^Raises\n-+\n(.*?)(?=\n\n[A-Z]\w+\n-+|\Z)", inspect.getdoc(function) or "", re.S | re.M
    )
    return set(re.findall(r"\w+Error", section[1])) if section else set()


MEASURES = [
    name
    for name, each in functions()
    if name.startswith(("plots.", "diagnostics.")) and inspect.isfunction(each)
]


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_or_picture_checks_its_arguments_at_the_border(name: str) -> None:
    assert at_the_border(dict(functions())[name]), f"{name} has no @takes"


@pytest.mark.parametrize(("name", "function"), list(functions()))
def test_raises_names_the_errors(name: str, function: Callable[..., Any]) -> None:
    expected = raised(function.__module__, function.__name__) | at_the_border(function)
    assert not expected - documented(function), f"{name} raises {sorted(expected)}"


def test_takes_adds_the_result_and_the_errors_that_a_docstring_does_not_name() -> None:
    @takes(tt.PictureError)
    def draw(captured: Layer, width: float) -> tt.picture.Picture:
        """Draw.

        Parameters
        ----------
        captured : a layer

        Raises
        ------
        SchemaError
            Named here.

        Examples
        --------
        >>> None
        """

    doc = inspect.getdoc(draw)
    heads = ["Parameters\n-", "Returns\n-------\nPicture\n\n", "Raises\n-", "Examples\n-"]
    assert [doc.index(head) for head in heads] == sorted(doc.index(head) for head in heads)
    assert documented(draw) == {"SchemaError", "PictureError"}
    assert doc.count("SchemaError") == 1
    assert "Named here." in doc


def test_takes_adds_sections_to_a_docstring_without_any_and_none_without_arguments() -> None:
    @takes()
    def double(number: float) -> float:
        """Double."""

    @takes()
    def nothing() -> None:
        """Do nothing."""

    assert documented(double) == {"ArgumentError"}
    assert "Returns\n-------\nfloat" in inspect.getdoc(double)
    assert nothing.__doc__ == "Do nothing."
