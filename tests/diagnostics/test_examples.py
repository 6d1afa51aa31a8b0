"""The examples in the docstrings of the diagnostics and of `testing` run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

from throughtime import diagnostics

MODULES = [
    "throughtime.testing",
    *(
        f"throughtime.diagnostics.{module.name}"
        for module in pkgutil.iter_modules(diagnostics.__path__)
        if module.name not in ("places", "statistics", "thresholds")  # no measures
    ),
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    results = doctest.testmod(importlib.import_module(name))
    assert results.failed == 0
    assert results.attempted > 0


def test_every_export_has_an_example():
    exported = [name for name in vars(diagnostics) if not name.startswith("_")]
    functions = [getattr(diagnostics, name) for name in exported if callable(getattr(diagnostics, name))]
    own = [each for each in functions if not isinstance(each, type)]
    assert len(own) >= 18
    assert not [each.__name__ for each in own if ">>> " not in each.__doc__]
