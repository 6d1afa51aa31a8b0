"""Rows of a lag matrix: closed form, exact zeros, and sums that are the total derivatives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.cells.cases import KINDS, MASKS, batch, difference, in_single_precision, layer, solved_case

from throughtime.cells import QUANTITIES, Layer, Pass, lag_rows, solve


def one_loss_step(passed, s):
    """The pass whose loss reads the output of step s only."""
    gradient = np.zeros_like(passed.output_gradient)
    gradient[:, s] = passed.output_gradient[:, s]
    return replace(passed, output_gradient=gradient)


def as_full_rows(gradient):
    """Each loss step's gradient on all outputs: (loss_time, sample, time, unit)."""
    rows = np.zeros((gradient.shape[1], *gradient.shape))
    for s in range(gradient.shape[1]):
        rows[s, :, s] = gradient[:, s]
    return rows


@pytest.mark.parametrize("runs_backward", [False, True])
def test_linear_rnn_has_a_toeplitz_lag_matrix(runs_backward):
    rng = np.random.default_rng(0)
    steps, units = 20, 6
    orthogonal = np.linalg.qr(rng.normal(size=(units, units)))[0]
    rnn = Layer("simple_rnn", np.zeros((1, units)), 0.8 * orthogonal, activation="linear")
    vector = rng.normal(size=units)
    rows = np.broadcast_to(vector, (2, steps, units))
    passed = Pass(np.zeros((2, steps, 1)), rng.normal(size=rows.shape), runs_backward=runs_backward)
    found = lag_rows(rnn, passed, rows).joint
    lags = np.arange(steps)[:, None] - np.arange(steps)
    lags = -lags if runs_backward else lags
    expected = np.where(lags >= 0, 0.8**lags * np.linalg.norm(vector), 0)
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), rtol=1e-12)
    assert not found[:, lags < 0].any()


@pytest.mark.parametrize("zero_output", [False, True])
@pytest.mark.parametrize("runs_backward", [False, True])
@pytest.mark.parametrize("masked", MASKS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_the_adjoint_of_one_loss_step(kind, masked, runs_backward, zero_output):
    rng = np.random.default_rng(1)
    flags = {"runs_backward": runs_backward, "zero_output": zero_output}
    case = solved_case(layer(kind, rng), batch(rng, masked=masked, states=True, **flags))
    passed, gradient = case.passed, case.passed.output_gradient
    diagonal = lag_rows(case.layer, passed, gradient, summed=True)
    full = lag_rows(case.layer, passed, as_full_rows(gradient), summed=True)
    for s in range(gradient.shape[1]):
        alone = solve(case.layer, one_loss_step(passed, s), QUANTITIES)
        norms = np.linalg.norm(alone["hidden_gradient"], axis=-1)
        np.testing.assert_allclose(diagonal.hidden[:, s], norms, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(full.hidden[:, s], norms, rtol=1e-12, atol=1e-15)
        assert not (diagonal.hidden[:, s][norms == 0]).any()
    total = solve(case.layer, passed, QUANTITIES)
    for found in (diagonal, full):
        assert difference(found.hidden_gradient, total["hidden_gradient"]) <= 1e-13
        if kind == "lstm":
            assert difference(found.cell_gradient, total["cell_gradient"]) <= 1e-13
            assert (found.joint >= found.hidden).all()
        else:
            assert found.cell_gradient is None
            np.testing.assert_array_equal(found.joint, found.hidden)


def test_joint_norm_takes_hidden_and_cell_as_independent():
    """Constant gates and U = 0: after the loss step itself only the cell carries, by f a step."""
    units, steps, forget = 3, 6, 0.7310585786300049
    bias = np.zeros((4, units))
    bias[1] = 1.0
    constant = Layer("lstm", np.zeros((1, 4, units)), np.zeros((units, 4, units)), bias)
    passed = Pass(np.zeros((1, steps, 1)), np.zeros((1, steps, units)))
    found = lag_rows(constant, passed, np.ones((1, steps, units)))
    at_zero, output_gate = np.sqrt(units), 0.5
    row = np.append(at_zero * output_gate * forget ** np.arange(steps - 1, 0, -1), at_zero)
    np.testing.assert_allclose(found.joint[0, -1], row, rtol=1e-12)
    assert not found.hidden[0, -1, :-1].any()


@pytest.mark.parametrize("masked", ["none", "random"])
@pytest.mark.parametrize("kind", KINDS)
def test_chunks_and_subsets_do_not_change_a_row(kind, masked):
    rng = np.random.default_rng(2)
    case = solved_case(layer(kind, rng), batch(rng, steps=9, masked=masked, runs_backward=True))
    gradient = case.passed.output_gradient
    whole = lag_rows(case.layer, case.passed, gradient, summed=True)
    for budget in (1, 2000):
        found = lag_rows(case.layer, case.passed, gradient, byte_budget=budget, summed=True)
        np.testing.assert_allclose(found.joint, whole.joint, rtol=1e-12)
        assert difference(found.hidden_gradient, whole.hidden_gradient) <= 1e-13
        full = lag_rows(case.layer, case.passed, as_full_rows(gradient), byte_budget=budget)
        np.testing.assert_allclose(full.joint, whole.joint, rtol=1e-12, atol=1e-300)
    some = lag_rows(case.layer, case.passed, gradient, loss_steps=[7, 0, 4])
    np.testing.assert_allclose(some.joint, whole.joint[:, [7, 0, 4]], rtol=1e-12)


def test_single_precision_reaches_as_far_as_its_numbers():
    steps = 100
    rnn = Layer("simple_rnn", np.zeros((1, 1), "f4"), np.full((1, 1), 0.5, "f4"), activation="linear")
    passed = Pass(np.zeros((1, steps, 1), "f4"), np.zeros((1, steps, 1), "f4"))
    found = lag_rows(rnn, passed, np.ones((1, steps, 1), "f4")).joint
    assert found.dtype == np.float32
    assert found[0, -1, 0] == 2.0**-99


def test_single_precision_stays_close():
    rng = np.random.default_rng(3)
    case = solved_case(layer("lstm", rng, 4, 16, scale=0.3), batch(rng, 4, 30, 4, 16, masked="right"))
    single = lag_rows(
        in_single_precision(case.layer), in_single_precision(case.passed), case.passed.output_gradient
    )
    exact = lag_rows(case.layer, case.passed, case.passed.output_gradient)
    assert difference(single.joint, exact.joint) <= 1e-5
