"""The JAX programs of `examples/zoo/jax`: each is captured, certified and drawn."""

from __future__ import annotations

import re
from importlib import util
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import throughtime as tt

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "zoo"
NAMES = sorted(path.stem for path in (FOLDER / "jax").glob("*.py"))


def example(name: str) -> Any:
    spec = util.spec_from_file_location(f"zoo_jax_{name}", FOLDER / "jax" / f"{name}.py")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", NAMES)
def test_every_loop_is_captured_certified_and_drawn(name: str) -> None:
    with jax.enable_x64(False):
        made = example(name)
        tree = tt.capture(made.build(), *made.batch(), loss=made.loss)
    assert sorted(leaf.path.strip("/") for leaf in tree.leaves) == sorted(made.RECURRENT)
    for leaf in tree.leaves:
        assert float(leaf["certificate_weights"].max()) <= 1e-5
        assert float(leaf["certificate_time"].max()) <= 1e-5
        assert np.abs(leaf["hidden_gradient"]).max() > 0
        assert (
            any("_gradient" not in str(name) and "axis" in str(leaf[name].dims) for name in leaf)
            or "kernel" in leaf
        )
    assert tt.plots.gradient_flow(tree).panels
    assert f"[{name}](jax/{name}.py)" in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_the_document_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (FOLDER.parents[1] / "docs" / "how_to" / "jax.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    with jax.enable_x64(False):
        for block in re.findall(r"```{code-cell} python\n(.*?)```", text, flags=re.DOTALL):
            exec(compile(block, "jax.md", "exec"), names)  # our own text
    assert names["tree"]["cell"]["hidden_gradient"].dims == ("sample", "time", "unit")
