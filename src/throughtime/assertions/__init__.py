"""Assertions on a model's memory, for tests: they fail with the verdict's words and numbers.

They need no pytest. Where pytest is installed, each is a fixture of the same name as well, and the report
of a failed test ends with the whole verdict: see `plugin`, which pytest loads at its start.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from throughtime.assertions.leak import assert_no_leak as assert_no_leak
    from throughtime.assertions.verdict import assert_finite as assert_finite
    from throughtime.assertions.verdict import assert_reaches as assert_reaches
    from throughtime.assertions.verdict import assert_uses as assert_uses

_HOMES = {
    "assert_finite": "verdict",
    "assert_no_leak": "leak",
    "assert_reaches": "verdict",
    "assert_uses": "verdict",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - the one list above is the truth


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}. It has {', '.join(__all__)}.")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
