"""Real Keras layers whose gradient through time is known in closed form, captured and measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
import xarray as xr
from keras import layers, ops
from tests.keras.unrolled import computing_in

import throughtime as tt
from throughtime.diagnostics import (
    decay_rate,
    lag_profile,
    lyapunov_spectrum,
    memory_horizon,
    timescale,
    vanishing_fraction,
)

SAMPLES, STEPS, FEATURES, UNITS = 4, 30, 3, 5
LAGS = np.arange(STEPS)[::-1]
RNG = np.random.default_rng(0)
ORTHOGONAL = np.linalg.qr(RNG.normal(size=(UNITS, UNITS)))[0]
VECTORS = RNG.normal(size=(SAMPLES, UNITS))
INPUTS = RNG.normal(size=(SAMPLES, STEPS, FEATURES))
KERNEL = RNG.normal(size=(FEATURES, UNITS))

TOLERANCES = {"float32": 1e-5}
if keras.backend.backend() == "tensorflow":  # elsewhere Keras' generic loop multiplies in float32
    TOLERANCES["float64"] = 1e-12


@pytest.fixture(params=TOLERANCES)
def tolerance(request: pytest.FixtureRequest) -> Iterator[float]:
    """Relative error allowed to layers that compute in the precision of the test."""
    with computing_in(request.param):
        yield TOLERANCES[request.param]


class ReadOut(keras.losses.Loss):
    """⟨v, out⟩ at each step that the layer returns; the labels are the vectors v."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.sum(y_true * y_pred, axis=-1)


def network(layer: Any, weights: list[np.ndarray], steps: int = STEPS) -> Any:
    model = keras.Sequential([keras.Input((steps, weights[0].shape[0])), layer])
    layer.set_weights(weights)
    return model


def captured(
    layer: Any,
    weights: list[np.ndarray],
    x: np.ndarray = INPUTS,
    v: np.ndarray = VECTORS,
    quantities: Any = "all",
) -> xr.Dataset:
    model = network(layer, weights, x.shape[1])
    tree = tt.capture(model, in_floatx(x), in_floatx(v), loss=ReadOut(), quantities=quantities)
    return next(iter(tree.leaves)).to_dataset()


def in_floatx(array: np.ndarray) -> np.ndarray:
    return array.astype(keras.config.floatx())


def norms(gradient: xr.DataArray) -> np.ndarray:
    return np.linalg.norm(gradient.values.astype("float64"), axis=-1)


SIZES = np.linalg.norm(VECTORS, axis=-1)[:, None]


@pytest.mark.parametrize("rate", [0.5, 0.9, 1.0, 1.1])
def test_linear_rnn_decays_by_its_rate(rate: float, tolerance: float) -> None:
    leaf = captured(layers.SimpleRNN(UNITS, "linear"), [KERNEL, rate * ORTHOGONAL, np.zeros(UNITS)])
    np.testing.assert_allclose(norms(leaf["hidden_gradient"]), rate**LAGS * SIZES, rtol=tolerance)
    np.testing.assert_allclose(lag_profile(leaf)["ratio"], rate ** np.arange(STEPS), rtol=tolerance)
    assert float(decay_rate(leaf)["rate"]) == pytest.approx(np.log(rate), abs=tolerance)
    np.testing.assert_allclose(lyapunov_spectrum(leaf), np.log(rate), atol=tolerance)


def test_tanh_rnn_at_rest_decays_by_its_rate(tolerance: float) -> None:
    layer = layers.SimpleRNN(UNITS)
    leaf = captured(layer, [KERNEL, 0.9 * ORTHOGONAL, np.zeros(UNITS)], np.zeros_like(INPUTS))
    np.testing.assert_allclose(norms(leaf["hidden_gradient"]), 0.9**LAGS * SIZES, rtol=tolerance)


@pytest.mark.usefixtures("tolerance")
def test_identity_rnn_keeps_the_gradient_exactly() -> None:
    layer = layers.SimpleRNN(UNITS, "relu")
    leaf = captured(layer, [np.abs(KERNEL), np.eye(UNITS), np.zeros(UNITS)], np.abs(INPUTS))
    kept = np.broadcast_to(in_floatx(VECTORS)[:, None], (SAMPLES, STEPS, UNITS))
    np.testing.assert_array_equal(leaf["hidden_gradient"], kept)
    np.testing.assert_array_equal(lag_profile(leaf)["ratio"], 1.0)
    assert memory_horizon(leaf)["censored"].all()


def constant_gates(layer: Any, *biases: float) -> xr.Dataset:
    """No weights but one bias for each gate."""
    bias = np.repeat(biases, UNITS)
    if getattr(layer, "reset_after", False):
        bias = np.stack([bias, np.zeros_like(bias)])
    columns = len(biases) * UNITS
    return captured(layer, [np.zeros((FEATURES, columns)), np.zeros((UNITS, columns)), bias])


def cell_ratios(leaf: xr.Dataset) -> np.ndarray:
    cell = norms(leaf["cell_gradient"])
    return cell / cell[:, -1:]


def test_forget_bias_of_1_sets_the_cell_gradient_while_the_hidden_gradient_is_zero(tolerance: float) -> None:
    leaf = constant_gates(layers.LSTM(UNITS), 0.3, 1.0, 0.5, -0.2)
    forget = 1 / (1 + np.exp(-1))
    assert forget == pytest.approx(0.731059, abs=5e-7)
    expected = np.broadcast_to(forget**LAGS, (SAMPLES, STEPS))
    np.testing.assert_allclose(cell_ratios(leaf), expected, rtol=tolerance)
    np.testing.assert_allclose(timescale(leaf), 3.1922, atol=5e-5)
    np.testing.assert_allclose(timescale(leaf) * np.log(2), 2.2127, atol=5e-5)
    assert not leaf["hidden_gradient"].isel(time=slice(-1)).any()
    assert leaf["hidden_gradient"].isel(time=-1).all()
    assert (memory_horizon(leaf) > 1).all()  # of h and c together


def test_chrono_bias_gives_its_longest_timescale(tolerance: float) -> None:
    longest = 50.0
    leaf = constant_gates(layers.LSTM(UNITS), 0.0, np.log(longest - 1), 0.5, 0.0)
    forget = leaf["gate_activation"].sel(gate="forget").astype("float64")
    np.testing.assert_allclose(1 / (1 - forget), longest, rtol=tolerance)
    np.testing.assert_allclose(1 / (1 - cell_ratios(leaf)[:, -2]), longest, rtol=10 * tolerance)


@pytest.mark.parametrize("reset_after", [True, False])
def test_constant_update_gate_halves_the_gradient_of_a_gru(reset_after: bool, tolerance: float) -> None:
    leaf = constant_gates(layers.GRU(UNITS, reset_after=reset_after), 0.0, 0.4, 0.7)
    np.testing.assert_allclose(norms(leaf["hidden_gradient"]), 0.5**LAGS * SIZES, rtol=tolerance)
    np.testing.assert_allclose(timescale(leaf), 1.4427, atol=5e-5)


class TestLagMatrix:
    RATE = 0.8
    LAG = np.arange(STEPS)[:, None] - np.arange(STEPS)

    @pytest.fixture
    def model(self) -> Any:
        layer = layers.SimpleRNN(UNITS, "linear", return_sequences=True, name="rnn")
        return network(layer, [KERNEL, self.RATE * ORTHOGONAL, np.zeros(UNITS)])

    @property
    def batch(self) -> tuple[np.ndarray, np.ndarray]:
        each_step = np.broadcast_to(VECTORS[:, None], (SAMPLES, STEPS, UNITS))
        return in_floatx(INPUTS), in_floatx(each_step)

    def test_entries_are_powers_of_the_rate_and_zero_above_the_diagonal(
        self, tolerance: float, model: Any
    ) -> None:
        leaf = tt.lag_matrix(model, *self.batch, loss=ReadOut())["rnn"].to_dataset()
        expected = np.where(self.LAG >= 0, self.RATE ** np.maximum(self.LAG, 0), 0) / STEPS
        np.testing.assert_allclose(leaf["lag_matrix"], expected * SIZES[..., None], rtol=tolerance)
        assert not leaf["lag_matrix"].values[:, self.LAG < 0].any()
        lags = np.arange(STEPS)
        np.testing.assert_allclose(leaf["lag_mean"], self.RATE**lags * SIZES.mean() / STEPS, rtol=tolerance)
        assert not leaf["lag_mean_error"].any()
        np.testing.assert_allclose(lag_profile(leaf)["ratio"], self.RATE**lags, rtol=tolerance)

    def test_total_derivative_is_the_sum_over_the_losses(self, tolerance: float, model: Any) -> None:
        leaf = tt.capture(model, *self.batch, loss=ReadOut())["rnn"]
        back, expected = VECTORS / STEPS, np.zeros((SAMPLES, STEPS, UNITS))
        for lag in range(STEPS):
            expected[:, : STEPS - lag] += back[:, None]
            back = self.RATE * back @ ORTHOGONAL.T
        np.testing.assert_allclose(leaf["hidden_gradient"], expected, rtol=0, atol=tolerance)


def test_single_precision_floor() -> None:
    """Halving passes 2⁻²⁴ of the start after 24 steps, the smallest number after 149."""
    weights = [np.ones((1, 1)), np.full((1, 1), 0.5), np.zeros(1)]
    leaf = captured(layers.SimpleRNN(1, "linear"), weights, np.ones((1, 160, 1)), np.ones((1, 1)))
    by_lag = leaf["hidden_gradient"].values[0, ::-1, 0]
    assert by_lag.dtype == np.float32
    exact = 2.0 ** -np.arange(160.0)
    is_flushed = by_lag[127] == 0  # loops of some frameworks take subnormal numbers for 0
    np.testing.assert_array_equal(by_lag, np.where(exact < 2.0 ** (-126 if is_flushed else -149), 0, exact))
    lost = vanishing_fraction(leaf)
    assert int(lost["below_precision"].argmax("lag")) == 25
    lost_as = "zero" if is_flushed else "underflow"
    assert int(lost[lost_as].argmax("lag")) == 127  # below the smallest normal number, 2⁻¹²⁶
    assert is_flushed or not lost["zero"].any()


def default_lstm(seed: int) -> list[np.ndarray]:
    keras.utils.set_random_seed(seed)
    layer = layers.LSTM(64)
    layer.build((None, None, 8))
    return layer.get_weights()


def lstm_as_torch_begins(seed: int, forget_bias: float = 0.0) -> list[np.ndarray]:
    """Every number uniform within ±1/√n; the two biases add."""
    rng = np.random.default_rng(seed)
    kernel, recurrent_kernel, *biases = (
        rng.uniform(-1 / 8, 1 / 8, shape) for shape in ((8, 256), (64, 256), (256,), (256,))
    )
    bias = sum(biases)
    bias[64:128] += forget_bias
    return [kernel, recurrent_kernel, bias]


def test_one_bias_explains_how_fast_new_lstms_forget() -> None:
    def median_rate(begin: Any, **settings: float) -> float:
        rng = np.random.default_rng(0)
        rates = []
        for seed in range(3):
            model.layers[0].set_weights(begin(seed, **settings))
            x, v = (rng.normal(size=shape).astype("float32") for shape in ((16, 100, 8), (16, 64)))
            rates.append(float(decay_rate(probe(x, v)["lstm"])["rate"]))
        return float(np.median(rates))

    model = network(layers.LSTM(64, name="lstm"), default_lstm(0), 100)
    probe = tt.Probe(model, loss=ReadOut())
    as_keras_begins = median_rate(default_lstm)
    assert as_keras_begins == pytest.approx(-0.180, abs=0.03)
    assert median_rate(lstm_as_torch_begins) == pytest.approx(-0.451, abs=0.03)
    assert median_rate(lstm_as_torch_begins, forget_bias=1.0) == pytest.approx(as_keras_begins, abs=0.05)


@pytest.mark.parametrize(
    ("gain", "spread", "expected"), [(1.0, 0.0, 0.0), (2.0, 0.0, 0.155), (1.0, 0.5, -0.273)]
)
def test_gradients_of_a_random_network_follow_its_largest_lyapunov_exponent(
    gain: float, spread: float, expected: float
) -> None:
    # h_t = tanh(ξ_t + h_{t−1} U), U ~ N(0, g²/n), ξ ~ N(0, s²); a first kick, then 100 steps to settle.
    units, steps, transient = 256, 500, 100
    rng = np.random.default_rng(0)
    weights = [np.eye(units), rng.normal(size=(units, units)) * gain / np.sqrt(units)]
    x = spread * rng.normal(size=(1, steps, units))
    x[:, 0] = rng.normal(size=units)
    # No certificate: chaos makes so much of rounding that in single precision it is at its bar.
    leaf = captured(
        layers.SimpleRNN(units, use_bias=False),
        weights,
        x,
        rng.normal(size=(1, units)),
        ["input", "hidden", "hidden_gradient", "weights"],
    )
    exponent = float(lyapunov_spectrum(leaf, transient=transient)[0, 0])
    slope = float(decay_rate(leaf.isel(time=slice(transient, None)))["rate"])
    assert exponent == pytest.approx(expected, abs=0.03)
    assert slope == pytest.approx(exponent, abs=0.01)
