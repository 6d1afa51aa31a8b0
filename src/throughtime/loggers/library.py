"""Imports a library that a logger needs, or raises an error that names the package to install."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from throughtime._errors import MissingDependencyError


def library(module: str, logger: str, extra: str) -> Any:
    """Import a module for a logger; one that is not installed raises MissingDependencyError."""
    try:
        return import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise MissingDependencyError(
            f"loggers.{logger} needs {name}: pip install 'throughtime[{extra}]'. ({error})"
        ) from None
