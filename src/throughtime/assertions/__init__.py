"""Assertions on a model's memory, for tests: they fail with the verdict's words and numbers.

They need no pytest. Where pytest is installed, each is a fixture of the same name as well, and a report of a
failed test ends with the whole verdict: see `plugin`.
"""

from throughtime.assertions.leak import assert_no_leak as assert_no_leak
from throughtime.assertions.verdict import assert_finite as assert_finite
from throughtime.assertions.verdict import assert_reaches as assert_reaches
from throughtime.assertions.verdict import assert_uses as assert_uses

__all__ = ["assert_finite", "assert_no_leak", "assert_reaches", "assert_uses"]


def __dir__() -> list[str]:
    return __all__
