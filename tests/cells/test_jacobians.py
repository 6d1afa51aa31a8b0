"""One-step Jacobians equal exact derivatives, and their product carries what the adjoint carries."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.cells.cases import KINDS, MASKS, batch, difference, in_single_precision, layer, solved_case

from throughtime.cells import QUANTITIES, solve, step_jacobians


def exact_jacobian(case):
    """d(state after the only step)/d(initial state) per sample (sample, state, state)."""
    samples, units = case.passed.hidden.shape[0], case.passed.hidden.shape[-1]
    names = ("hidden", "cell") if case.kind == "lstm" else ("hidden",)
    rows = [[case.derivative(f"initial_{old}", of=new)[:, 0] for old in names] for new in names]
    own = np.arange(samples)
    blocks = [[block[own, :, own].reshape(samples, units, units) for block in row] for row in rows]
    return np.concatenate([np.concatenate(row, axis=-1) for row in blocks], axis=-2)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("kind", KINDS)
def test_jacobian_is_the_derivative_of_one_step(kind, activation):
    rng = np.random.default_rng(0)
    case = solved_case(layer(kind, rng, activation=activation), batch(rng, steps=1, states=True))
    assert difference(step_jacobians(case.layer, case.passed)[:, 0], exact_jacobian(case)) <= 1e-13


@pytest.mark.parametrize("runs_backward", [False, True])
@pytest.mark.parametrize("masked", MASKS)
@pytest.mark.parametrize("kind", KINDS)
def test_product_of_jacobians_is_the_adjoint(kind, masked, runs_backward):
    rng = np.random.default_rng(1)
    passed = batch(rng, masked=masked, gradient="final", states=True, runs_backward=runs_backward)
    case = solved_case(layer(kind, rng), passed)
    found = solve(case.layer, case.passed, QUANTITIES)
    state = [case.passed.final_gradients[0]]
    expected = [found["initial_hidden_gradient"]]
    if kind == "lstm":
        state.append(case.passed.final_gradients[1])
        expected.append(found["initial_cell_gradient"])
    row = np.concatenate(state, axis=-1)[:, None]
    jacobians = step_jacobians(case.layer, case.passed, found.get("cell"))
    for t in range(jacobians.shape[1])[:: 1 if runs_backward else -1]:
        row = row @ jacobians[:, t]
    assert difference(row[:, 0], np.concatenate(expected, axis=-1)) <= 1e-13


def test_masked_steps_copy():
    rng = np.random.default_rng(3)
    case = solved_case(layer("lstm", rng), batch(rng))
    valid = np.ones((3, 5), bool)
    valid[1, 2] = False
    found = step_jacobians(case.layer, replace(case.passed, valid=valid))
    np.testing.assert_array_equal(found[1, 2], np.eye(6))


def test_single_precision_is_kept():
    rng = np.random.default_rng(4)
    case = solved_case(layer("gru", rng), batch(rng))
    assert (
        step_jacobians(in_single_precision(case.layer), in_single_precision(case.passed)).dtype == np.float32
    )
