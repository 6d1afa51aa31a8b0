"""Assertions on a model's memory, for tests: they fail with the verdict's words and numbers.

They need no pytest. Where pytest is installed, each is a fixture of the same name as well, and the report
of a failed test ends with the whole verdict: see `plugin`, which pytest loads at its start.
"""

from typing import Any

import lazy_loader

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}. It has {', '.join(__all__)}.")
    return _load(name)
