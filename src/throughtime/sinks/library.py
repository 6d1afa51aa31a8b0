"""Loads what a logger needs, or says how to install it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from throughtime._errors import MissingDependencyError


def library(module: str, sink: str, extra: str) -> Any:
    """Import a module for a sink.

    Raises
    ------
    MissingDependencyError
        It is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise MissingDependencyError(
            f"sinks.{sink} needs {name}: pip install 'throughtime[{extra}]'. ({error})"
        ) from None
