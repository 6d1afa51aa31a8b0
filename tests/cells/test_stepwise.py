"""Steps solved apart, each from the state before it, give what the whole layer gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.cells.cases import batch, difference, layer, solved_case

from throughtime.cells import QUANTITIES, parallel, scan, solve


@pytest.mark.parametrize(("cores", "block"), [(1, 2**18), (4, 1)], ids=["at once", "in shares and blocks"])
@pytest.mark.parametrize("kind", ["simple_rnn", "lstm", "gru", "gru_reset_before"])
def test_steps_apart_are_the_layer(kind, cores, block, monkeypatch):
    monkeypatch.setattr(parallel, "_cores", lambda: cores)
    monkeypatch.setattr(parallel, "WORTH_A_THREAD", 1)
    monkeypatch.setattr(scan, "BLOCK_BYTES", block)
    rng = np.random.default_rng(0)
    built = layer(kind, rng)
    passed = solved_case(built, batch(rng, states=True, gradient="everything")).passed
    whole = solve(built, passed, QUANTITIES)

    def before(after, first):
        return np.concatenate([first[:, None], after[:, :-1]], axis=1)

    # What the steps after it ask of c_t: the state handed out is c alone, h_t does not follow it there.
    cell, asked = None, None
    if kind == "lstm":
        cell = before(whole["cell"], passed.initial[1])
        later = whole["cell_gradient"][:, 1:] * whole["gate_activation"][:, 1:, 1]
        asked = np.concatenate([later, passed.final_gradients[1][:, None]], axis=1)
    apart = replace(
        passed,
        output_gradient=whole["hidden_gradient"],
        initial=(before(whole["hidden"], passed.initial[0]), cell),
        final_gradients=(None, asked),
    )
    found = solve(built, replace(apart, windows=(1,) * whole["hidden"].shape[1]), QUANTITIES)
    assert found.keys() == whole.keys()
    for name, values in whole.items():
        assert difference(found[name], values) <= 1e-12, name
