"""Imports a library that is not always installed, or raises an error that names the package to install."""

from importlib import import_module
from typing import Any

from throughtime._errors import MissingDependencyError


def library(user: str, name: str, package: str, *modules: str) -> Any:
    """Import the first of some modules that is installed, for `user`; MissingDependencyError if none is."""
    reason: ImportError | None = None
    for module in modules or (name,):
        try:
            return import_module(module)
        except ImportError as error:
            reason = error
    raise MissingDependencyError(f"{user} needs {name}: pip install {package}. ({reason})")
