"""What pip installs: each extra that an error or a page names exists, and brings what it says."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from throughtime._cli.doctor import FILES, LOGGERS, MODELS

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def named() -> set[str]:
    """Extras in errors of the source, in the README and in the docs."""
    files = [*(ROOT / "src").rglob("*.py"), ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    texts = (file.read_text("utf-8") for file in files)
    found = re.compile(r"""(?:throughtime|pip install "\.)\[([\w,-]+)\]""")
    in_words = {name for text in texts for names in found.findall(text) for name in names.split(",")}
    return in_words | {row.extra for row in MODELS} | {*LOGGERS.values(), *FILES.values()}


def test_each_extra_that_is_named_exists():
    assert {"trackio", "transformers", "netcdf"} <= named() <= set(EXTRAS)


@pytest.mark.parametrize(("extra", "has_keras"), [("torch", False), ("keras-torch", True), ("jax", True)])
def test_torch_brings_no_keras_and_keras_on_torch_does(extra, has_keras):
    assert any(each.startswith("keras") for each in EXTRAS[extra]) is has_keras


def test_the_tests_need_every_framework():
    (own,) = [each for each in EXTRAS["test"] if each.startswith("throughtime[")]
    assert {"tensorflow", "jax", "keras-torch", "tf_keras"} <= set(re.findall(r"[\w-]+", own))


def test_no_file_is_ignored_by_git_and_so_left_out_of_the_wheel():
    command = ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"]
    assert not subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
