"""The pytest plugin, loaded by its entry point: the assertions as fixtures, and the verdict in the report."""

import json
from collections.abc import Callable, Generator
from typing import Any

import pytest

from throughtime import assertions
from throughtime._errors import VerdictError


def _fixture(name: str) -> Any:
    def fixture() -> Callable[..., None]:
        function: Callable[..., None] = getattr(assertions, name)
        return function

    fixture.__doc__ = f"See `throughtime.assertions.{name}`."
    return pytest.fixture(name=name, scope="session")(fixture)


assert_finite, assert_no_leak = _fixture("assert_finite"), _fixture("assert_no_leak")
assert_reaches, assert_uses = _fixture("assert_reaches"), _fixture("assert_uses")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Add the verdict to the report of a failed assertion: in words, and as JSON to its user properties."""
    report = yield
    error = None if call.excinfo is None else call.excinfo.value
    if isinstance(error, VerdictError) and error.found is not None:
        report.sections.append(("throughtime verdict", str(error.found)))
        verdict = json.dumps(error.found.to_dict(), allow_nan=False)
        item.user_properties.append(("throughtime.verdict", verdict))  # pytest --junit-xml writes it
    return report
