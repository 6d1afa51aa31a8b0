"""The README's blocks run in order as one script; tests/test_notebooks.py runs them twice, in a notebook."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest

import throughtime as tt

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """The variables that the script leaves."""
    namespace = {}
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    with contextlib.chdir(tmp_path_factory.mktemp("readme")):  # where it leaves a run and a report
        for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
            exec(compile(block, "README.md", "exec"), namespace)  # our own text
    return namespace


def test_the_remedy_that_it_pastes_solves_its_task(names):
    assert names["found"].verdict == "uses"
    assert float(names["model"].evaluate(names["x"], names["y"], verbose=0)) < 0.1


def test_what_it_captures_is_there(names):
    assert names["tree"]["lstm"]["hidden_gradient"].sizes == {"sample": 16, "time": 60, "unit": 32}
    assert names["grads"].shape == (8, 32)  # of what the layer returns, its last step
    assert {leaf.path for leaf in names["layers"].leaves} == {"/lstm/0", "/lstm/1"}


def test_successors_in_the_migration_table_exist(names):
    layer, model, x, y = names["tree"]["lstm"], names["model"], names["x"][:8], names["y"][:8]
    tt.plots.weights(layer)
    tt.show_features_hist(layer["kernel"], by="gate")
    tt.show_features_hist(names["grads"], peaks_to_clip=1)
    assert "kernel_gradient" in tt.capture(model, x, y, quantities="weight_gradients")["lstm"]
    assert set(tt.capture(model, x, quantities="output")["lstm"].data_vars) == {"output"}
