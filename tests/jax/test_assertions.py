"""The assertions for tests, on programs of JAX that pass and that fail."""

from __future__ import annotations

from pathlib import Path

from tests.assertion_cases import JAX, check_assertions


def test_assertions_pass_and_fail_in_pytest(tmp_path: Path) -> None:
    check_assertions(tmp_path, JAX)
