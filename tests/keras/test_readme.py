"""The README's blocks run in order as one script, and once more in the same process and folder."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest

import throughtime as tt

ROOT = Path(__file__).resolve().parents[2]


def blocks():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"```(\w*)\n(.*?)```", text, flags=re.DOTALL)
    assert {language for language, _ in found} == {"bash", "python"}
    return [block for language, block in found if language == "python"]


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """The variables that the script leaves when it is run a second time in the same folder."""
    namespace = {}
    with contextlib.chdir(tmp_path_factory.mktemp("readme")):  # where it leaves a run
        for block in 2 * blocks():
            exec(compile(block, "README.md", "exec"), namespace)  # our own text
    return namespace


def test_quick_start_runs(names):
    assert names["grads"].shape == (16, 100, 6)
    assert set(names["tree"]) == {"lower", "upper"}


def test_native_module_is_captured_beside_the_keras_model(names):
    assert {leaf.path for leaf in names["layers"].leaves} == {"/lstm/0", "/lstm/1"}
    assert names["lowest"].shape == (16, 100, 6)


def test_successors_in_the_migration_tables_exist(names):
    lower, model, x, y = (names["tree"]["lower"], *(names[each] for each in ("model", "x", "y")))
    tt.plots.weights(lower)
    tt.show_features_hist(lower["kernel"], by="gate")
    tt.show_features_hist(names["grads"], peaks_to_clip=1)
    assert "kernel_gradient" in tt.capture(model, x, y, quantities="weight_gradients")["lower"]
    assert set(tt.capture(model, x, quantities="output")["lower"].data_vars) == {"output"}
    assert {node.path for node in names["tree"].leaves} == {"/lower", "/upper"}
