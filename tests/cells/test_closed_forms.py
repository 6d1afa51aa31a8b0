"""Networks whose gradient through time is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from throughtime.cells import Layer, Pass, solve

UNITS, FEATURES, STEPS, SAMPLES = 6, 2, 40, 3
LAGS = np.arange(STEPS)[::-1]
RNG = np.random.default_rng(0)
ORTHOGONAL = np.linalg.qr(RNG.normal(size=(UNITS, UNITS)))[0]
VECTOR = RNG.normal(size=(SAMPLES, UNITS))


def simple_rnn(recurrent, activation, kernel=None, dtype=np.float64):
    kernel = np.zeros((FEATURES, UNITS)) if kernel is None else kernel
    return Layer("simple_rnn", kernel.astype(dtype), recurrent.astype(dtype), activation=activation)


def gated(kind, gates, bias=None):
    """No weights, so that every gate is constant."""
    bias = np.zeros((gates, UNITS)) if bias is None else bias
    return Layer(kind, np.zeros((FEATURES, gates, UNITS)), np.zeros((UNITS, gates, UNITS)), bias)


def solved(layer, hidden, dtype=np.float64, **gradients):
    gradients = gradients or {"output_gradient": VECTOR}
    gradients = {name: value.astype(dtype) for name, value in gradients.items()}
    passed = Pass(np.zeros((SAMPLES, STEPS, FEATURES), dtype), hidden.astype(dtype), **gradients)
    names = {"hidden_gradient", "initial_hidden_gradient", "input_gradient"}
    return solve(layer, passed, frozenset(names | ({"cell_gradient"} if layer.kind == "lstm" else set())))


def norms(vectors):
    return np.linalg.norm(vectors.astype(np.float64), axis=-1)


STILL = np.zeros((SAMPLES, STEPS, UNITS))
SIZE = norms(VECTOR)[:, None]


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
@pytest.mark.parametrize("rate", [0.5, 0.9, 1.0, 1.1])
def test_linear_rnn_decays_by_its_rate(rate, dtype, tolerance):
    hidden = RNG.normal(size=STILL.shape)
    found = solved(simple_rnn(rate * ORTHOGONAL, "linear", dtype=dtype), hidden, dtype)
    np.testing.assert_allclose(norms(found["hidden_gradient"]), rate**LAGS * SIZE, rtol=tolerance)


def test_tanh_rnn_at_rest_decays_by_its_rate():
    found = solved(simple_rnn(0.9 * ORTHOGONAL, "tanh"), STILL)
    np.testing.assert_allclose(norms(found["hidden_gradient"]), 0.9**LAGS * SIZE, rtol=1e-12)


def test_identity_rnn_keeps_the_gradient_exactly():
    kernel, inputs = (
        RNG.uniform(0.1, 1, size=(FEATURES, UNITS)),
        RNG.uniform(0.1, 1, (SAMPLES, STEPS, FEATURES)),
    )
    layer = simple_rnn(np.eye(UNITS), "relu", kernel)
    passed = Pass(inputs, np.cumsum(inputs @ kernel, axis=1), VECTOR)
    found = solve(layer, passed, frozenset({"hidden_gradient"}))["hidden_gradient"]
    np.testing.assert_array_equal(found, np.broadcast_to(VECTOR[:, None], found.shape))


def lstm_with_forget_bias(forget_bias, **gradients):
    layer = gated("lstm", 4, np.zeros((4, UNITS)))
    layer.bias[1] = forget_bias
    return solved(layer, STILL, **gradients)


def test_constant_forget_gate_sets_the_cell_gradient_and_the_hidden_gradient_stays_zero():
    found = lstm_with_forget_bias(1.0)
    ratio = norms(found["cell_gradient"]) / norms(found["cell_gradient"])[:, -1:]
    forget = 0.7310585786300049
    np.testing.assert_allclose(ratio, np.broadcast_to(forget**LAGS, ratio.shape), rtol=1e-12)
    assert not found["hidden_gradient"][:, :-1].any()
    np.testing.assert_allclose(
        [-1 / np.log(forget), np.log(0.5) / np.log(forget)], [3.1922, 2.2127], atol=5e-5
    )


def test_chrono_bias_gives_its_longest_timescale():
    longest = 50.0
    found = lstm_with_forget_bias(np.log(longest - 1))["cell_gradient"]
    forget = norms(found)[:, -2] / norms(found)[:, -1]
    np.testing.assert_allclose(1 / (1 - forget), longest, rtol=1e-12)


@pytest.mark.parametrize("reset_after", [True, False])
def test_constant_update_gate_halves_the_gradient_of_a_gru(reset_after):
    layer = gated("gru", 3)
    layer = type(layer)(**{**vars(layer), "reset_after": reset_after})
    found = norms(solved(layer, STILL)["hidden_gradient"])
    np.testing.assert_allclose(found, 0.5**LAGS * SIZE, rtol=1e-12)
    np.testing.assert_allclose(-1 / np.log(found[:, -2] / found[:, -1]), 1.4427, atol=5e-5)


@pytest.mark.parametrize("entering", [1.0, 1e-30, 1e10])
def test_doubling_reaches_the_largest_numbers_of_single_precision(entering):
    """2⁹⁰ and more, which lifting the gradients first would push beyond single precision."""
    steps = 92
    layer = Layer("simple_rnn", np.zeros((1, 1), "f4"), np.full((1, 1), 2.0, "f4"), activation="linear")
    arriving = np.full((1, 1), entering, "f4")
    passed = Pass(np.ones((1, steps, 1), "f4"), np.zeros((1, steps, 1), "f4"), arriving)
    found = solve(layer, passed, frozenset({"hidden_gradient", "kernel_gradient", "gate_activation"}))
    growth = 2.0 ** np.arange(steps)
    np.testing.assert_array_equal(found["hidden_gradient"][0, ::-1, 0], arriving[0, 0] * growth)
    np.testing.assert_allclose(found["kernel_gradient"][0, 0], arriving[0, 0] * growth.sum(), rtol=1e-6)


def test_an_explosion_beyond_single_precision_is_infinite():
    layer = Layer("simple_rnn", np.zeros((1, 1), "f4"), np.full((1, 1), 2.0, "f4"), activation="linear")
    passed = Pass(np.zeros((1, 140, 1), "f4"), np.zeros((1, 140, 1), "f4"), np.ones((1, 1), "f4"))
    with np.errstate(over="ignore"):
        found = solve(layer, passed, frozenset({"hidden_gradient"}))["hidden_gradient"][0, ::-1, 0]
    assert np.isfinite(found[:128]).all()
    assert np.isinf(found[128:]).all()


def test_single_precision_floor():
    """Halving reaches 2⁻²⁴ of the start after 24 steps; single precision ends near step 149."""
    steps = 170
    layer = Layer("simple_rnn", np.zeros((1, 1), "f4"), np.full((1, 1), 0.5, "f4"), activation="linear")
    passed = Pass(np.zeros((1, steps, 1), "f4"), np.zeros((1, steps, 1), "f4"), np.ones((1, 1), "f4"))
    found = solve(layer, passed, frozenset({"hidden_gradient"}))["hidden_gradient"][0, ::-1, 0]
    assert found[24] == 2.0**-24
    assert found[149] == 2.0**-149
    assert not found[150:].any()
