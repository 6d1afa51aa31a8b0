"""The assertions for tests, on torch modules that pass and that fail."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.assertion_cases import TORCH, check_assertions

import throughtime as tt
from throughtime import testing
from throughtime.assertions import assert_finite, assert_no_leak, assert_reaches, assert_uses, plugin

ROOT = Path(__file__).resolve().parent.parent.parent


def test_assertions_pass_and_fail_in_pytest(tmp_path):
    check_assertions(tmp_path, TORCH)


def test_the_entry_point_names_the_plugin():
    told = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert told["project"]["entry-points"]["pytest11"] == {"throughtime": plugin.__name__}


def test_the_plugin_loads_no_framework_and_no_drawing_library():
    heavy = ["torch", "keras", "matplotlib", "bokeh", "xarray"]
    program = f"import sys, throughtime.assertions.plugin; print([n for n in {heavy} if n in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_an_undecided_answer_fails():
    tree = testing.decaying(rate=0.9, samples=1)
    with pytest.warns(tt.ThroughTimeWarning), pytest.raises(tt.VerdictError, match="undecided"):
        assert_uses(
            torch.nn.RNN(1, 2, batch_first=True), torch.rand(1, 30, 1), torch.rand(1), lag=5, loss=last
        )
    with pytest.raises(AssertionError, match="is undecided") as caught:
        assert_uses(tree, lag=20)
    assert caught.value.found.layers["rnn"].use.answer == "not measured"


def last(output, y):
    return (output[0][:, -1].mean(1) - y).square()


def test_a_layer_that_is_none_and_a_lag_that_is_none_are_refused():
    tree = testing.bidirectional(samples=16)
    path = next(iter(tt.diagnose(tree).layers))
    with pytest.raises(tt.LayerNotFoundError, match=r"Did you mean"):
        assert_reaches(tree, lag=5, layer=path.upper())
    with pytest.raises(tt.DiagnosticError, match="lag=0"):
        assert_reaches(tree, lag=0)


class Rollout(torch.nn.Module):
    """A cell in a loop whose state is replaced where an episode starts."""

    def __init__(self, resets: bool):
        super().__init__()
        self.cell, self.resets = torch.nn.RNNCell(2, 3), resets

    def forward(self, batch):
        x, starts = batch
        h, outputs = torch.zeros(len(x), 3), []
        for step, entering in enumerate(x.unbind(1)):
            keep = 1 - starts[:, step, None] if self.resets else 1
            h = self.cell(entering, h * keep)
            outputs.append(h)
        return torch.stack(outputs, 1)


@pytest.mark.parametrize("given", ["steps", "starts"])
def test_a_loop_that_resets_passes_and_one_that_does_not_fails(given):
    starts = torch.zeros(4, 6)
    starts[:, 3] = 1
    x, y = torch.randn(4, 6, 2), torch.randn(4, 6, 3)
    boundaries = [3] if given == "steps" else starts
    mse = torch.nn.MSELoss()
    assert_no_leak(Rollout(True), (x, starts), y, loss=mse, boundaries=boundaries)
    with pytest.raises(tt.VerdictError, match="crosses 4 boundaries: hidden of sample 0 leaks into step 3"):
        assert_no_leak(Rollout(False), (x, starts), y, loss=mse, boundaries=boundaries)


@pytest.mark.parametrize("boundaries", [[6], [-1], np.zeros((4, 5), bool), "none", [0.5]])
def test_boundaries_that_do_not_fit_are_refused(boundaries):
    x, y, starts = torch.randn(4, 6, 2), torch.randn(4, 6, 3), torch.zeros(4, 6)
    with pytest.raises(tt.DiagnosticError, match="boundaries"):
        assert_no_leak(Rollout(True), (x, starts), y, loss=torch.nn.MSELoss(), boundaries=boundaries)
    model, loss = torch.nn.RNN(2, 3, batch_first=True), lambda output, y: (output[0] - y).square().mean(2)
    with pytest.raises(tt.DiagnosticError, match="boundaries"):
        assert_no_leak(model, x, y, loss=loss, boundaries=boundaries)


def test_the_examples_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "how_to" / "ci.md").read_text("utf-8")
    names: dict[str, object] = {}
    exec("\n".join(re.findall(r"```{code-cell} python\n(.*?)```", page, re.DOTALL)), names)
    tests = [names[name] for name in names if name.startswith("test_")]
    for test in tests:
        test()
    assert len(tests) == 2


def test_finite_numbers_pass_whatever_the_verdict_is():
    assert_finite(testing.decaying(rate=0.5, samples=1))
