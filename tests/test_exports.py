"""Every public name exists, is told in numpydoc and, where it does something, shows an example."""

from __future__ import annotations

import inspect
import subprocess
import sys
from operator import attrgetter

import pytest

import throughtime as tt

MODULES = [name for name in tt.__all__ if inspect.ismodule(getattr(tt, name))]
RAISED = [name for name in tt.__all__ if name.endswith(("Error", "Warning"))]


def callables() -> list[str]:
    """Names of all that does something, `diagnostics.lag_profile` for what lives in a public module."""
    direct = [name for name in tt.__all__ if name not in {*RAISED, *MODULES}]
    inner = [
        f"{module}.{name}"
        for module in MODULES
        for name, thing in inspect.getmembers(getattr(tt, module), inspect.isfunction)
        if not name.startswith("_") and thing.__module__.startswith(f"throughtime.{module}")
    ]
    return direct + inner


CALLABLE = callables()
# The synthetic trees share their parameters and their kind of result: their module tells those once.
TOLD_EACH = [name for name in CALLABLE if not name.startswith("testing.")]


def public(name: str) -> object:
    return attrgetter(name)(tt)


def test_names_are_sorted_and_listed():
    assert list(tt.__all__) == sorted(set(tt.__all__))
    assert set(tt.__all__) <= set(dir(tt))


@pytest.mark.parametrize("module", MODULES)
def test_a_public_module_lists_its_public_names_and_no_others(module):
    inside = getattr(tt, module)
    for name in dir(inside):
        assert callable(getattr(inside, name)), f"{module}.{name} is no use to who types {module}.<Tab>"
        assert getattr(inside, name).__module__.startswith("throughtime."), name
    assert len(dir(inside)) >= 4


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="show_featurs"):
        tt.show_featurs  # noqa: B018


def test_star_import_brings_every_name():
    program = "from throughtime import *; import throughtime as tt; print(set(tt.__all__) <= set(dir()))"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "True"


@pytest.mark.parametrize("name", tt.__all__)
def test_name_has_a_docstring(name):
    summary = inspect.getdoc(getattr(tt, name)).splitlines()[0]
    assert summary.endswith("."), "the first line is one sentence"


@pytest.mark.parametrize("name", CALLABLE)
def test_callable_shows_an_example(name):
    doc = inspect.getdoc(public(name))
    assert "Examples\n--------" in doc
    assert ">>> " in doc.partition("Examples\n--------")[2]


@pytest.mark.parametrize("name", TOLD_EACH)
def test_callable_tells_parameters_and_result(name):
    thing = public(name)
    doc = inspect.getdoc(thing)
    if inspect.signature(thing).parameters:
        assert "Parameters\n----------" in doc
    # A class returns its instance, and an assertion nothing.
    if not inspect.isclass(thing) and inspect.signature(thing).return_annotation not in (None, "None"):
        assert "Returns\n-------" in doc


@pytest.mark.parametrize("name", TOLD_EACH)
def test_each_parameter_is_told_or_told_elsewhere(name):
    thing = public(name)
    doc = inspect.getdoc(thing)
    missing = [each for each in inspect.signature(thing).parameters if each not in doc]
    assert not missing or "See `" in doc, f"the docstring of {name} says nothing of {missing}"


@pytest.mark.parametrize("name", RAISED)
def test_raised_class_is_ours_and_a_builtin_one(name):
    raised = getattr(tt, name)
    assert issubclass(raised, (tt.ThroughTimeError, tt.ThroughTimeWarning))
    if raised not in (tt.ThroughTimeError, tt.ThroughTimeWarning):
        builtin = [base for base in raised.__mro__ if base.__module__ == "builtins"]
        assert {base.__name__ for base in builtin} > {"Exception", "BaseException", "object"}
