"""The torch programs of `examples/zoo/torch`: each is captured, certified and drawn."""

from __future__ import annotations

from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import throughtime as tt
from throughtime._tree import states

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "zoo"
NAMES = sorted(path.stem for path in (FOLDER / "torch").glob("*.py"))


def example(name: str) -> Any:
    spec = util.spec_from_file_location(f"zoo_torch_{name}", FOLDER / "torch" / f"{name}.py")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", NAMES)
def test_every_loop_is_captured_certified_and_drawn(name: str) -> None:
    made = example(name)
    x, y = made.batch()
    tree = tt.capture(made.build(), x, y, loss=made.loss)
    for path in made.RECURRENT:
        leaf = tree[path]
        assert float(leaf["certificate_time"]) <= 1e-5
        assert leaf.sizes["time"] == made.STEPS
        assert all(np.abs(leaf[f"{state}_gradient"]).max() > 0 for state in states(leaf.to_dataset()))
    assert tt.plots.gradient_flow(tree).panels
    assert f"[{name}](torch/{name}.py)" in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_no_gradient_of_the_policy_crosses_an_episode() -> None:
    made = example("recurrent_policy")
    x, y = made.batch()
    tree = tt.capture(made.build(), x, y, loss=made.loss)
    starts = x[1][:, 1:].astype(bool)
    assert starts.sum() >= 3
    np.testing.assert_array_equal(tree["memory"]["reset"].values[:, 1:], starts)
    assert tt.diagnostics.boundary_leak(tree["memory"], x[1]) == []


def test_marks_of_the_cells_are_in_the_tree() -> None:
    made = example("continuous_time")
    tree = tt.capture(made.build(), *made.batch(), loss=made.loss)
    gate = tree["cell"]["gate_activation"].sel(gate="update")
    assert ((gate > 0) & (gate < 1)).all()
    made = example("spiking_net")
    spikes = tt.capture(made.build(), *made.batch(), loss=made.loss)["spikes"]["output"]
    assert set(np.unique(spikes)) == {0.0, 1.0}
