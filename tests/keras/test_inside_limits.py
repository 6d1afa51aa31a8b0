"""What cannot be seen inside a layer, or not be measured there: said in words, never answered by a number."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
import pytest
import xarray as xr
from keras import layers, ops

import throughtime as tt
from throughtime._errors import DiagnosticError
from throughtime._vocabulary import INSIDE
from throughtime.diagnostics import (
    effective_steps,
    first_nonfinite,
    gradient_instability,
    horizon_text,
    lag_profile,
    lyapunov_spectrum,
    memory_horizon,
    memory_horizon_median,
    ratio_text,
    saturation,
    temporal_coherence,
    timescale,
    vanishing_fraction,
)

SAMPLES, STEPS, FEATURES, UNITS = 3, 6, 2, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(SAMPLES, STEPS, FEATURES)).astype("float32")
Y = RNG.normal(size=(SAMPLES, 1)).astype("float32")


def network(*middle: Any) -> Any:
    model = keras.Sequential([keras.Input((STEPS, FEATURES)), *middle, layers.Dense(1)])
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(0, 0.5, weight.shape) for weight in model.weights])
    model.compile(loss="mse")
    return model


def captured(layer: Any, x: np.ndarray = X, **options: Any) -> xr.Dataset:
    return next(iter(tt.capture(network(layer), x, Y, **options).leaves)).to_dataset()


# What a layer does not have


@pytest.mark.parametrize("quantity", ["cell", "cell_gradient", "initial_cell_gradient"])
def test_a_gru_asked_for_a_cell_names_what_it_has(quantity: str) -> None:
    with pytest.raises(tt.ThroughTimeError) as caught:
        captured(layers.GRU(UNITS, name="gru"), quantities=quantity)
    said = str(caught.value)
    assert said.startswith(f"There is no {quantity} for gru: a gru has none")
    assert all(name in said for name in ("hidden", "hidden_gradient", "gate_activation", "gate_gradient"))


def test_a_simple_rnn_has_no_gate_values() -> None:
    with pytest.raises(
        tt.SchemaError, match=r"no gate_activation for rnn.*only hidden, hidden_gradient, gate_gradient"
    ):
        captured(layers.SimpleRNN(UNITS, name="rnn"), quantities="gate_activation")


def test_a_layer_that_has_it_is_enough() -> None:
    model = network(layers.LSTM(UNITS, return_sequences=True, name="lstm"), layers.GRU(UNITS, name="gru"))
    tree = tt.capture(model, X, Y, quantities=["cell", "hidden"])
    assert "cell" in tree["lstm"]
    assert set(tree["gru"].data_vars) == {"hidden", "loss", "reduction_factor"}
    with pytest.raises(tt.SchemaError, match="No 'cell' for gru: a gru has none"):
        tt._tree.require(tree["gru"], "cell")


# Layers that cannot be looked into


class Overriding(layers.LSTM):
    """A layer whose loop over time is its own affair."""

    def call(self, sequences: Any, initial_state: Any = None, mask: Any = None, training: Any = False) -> Any:
        return super().call(sequences, initial_state, mask, training)


REASON = "Overriding overrides call"


def test_a_layer_that_cannot_be_looked_into_says_why_and_gives_the_rest() -> None:
    leaf = captured(Overriding(UNITS))
    assert REASON in leaf.attrs["missing_inside"]
    assert {"input", "input_gradient", "output", "output_gradient", "valid"} <= set(leaf.data_vars)
    assert not set(INSIDE) & set(leaf.data_vars)
    assert "certificate_weights" not in leaf
    with pytest.raises(tt.SchemaError, match=f"No 'hidden_gradient'.*{REASON}"):
        lag_profile(leaf)


@pytest.mark.parametrize("quantity", ["hidden_gradient", "certificate"])
def test_its_inside_asked_for_by_name_is_an_error(quantity: str) -> None:
    with pytest.raises(tt.NoGradientError, match=f"no {quantity}.*{REASON}"):
        captured(Overriding(UNITS), quantities=quantity)


def test_dropout_that_is_not_active_is_no_obstacle() -> None:
    leaf = captured(layers.LSTM(UNITS, dropout=0.5, recurrent_dropout=0.5))
    assert float(leaf["certificate_time"]) <= 1e-5


def test_in_training_a_layer_without_dropout_is_looked_into() -> None:
    leaf = captured(layers.GRU(UNITS), training=True)
    assert float(leaf["certificate_time"]) <= 1e-5


# Broken numbers


def test_a_broken_weight_is_captured_and_located() -> None:
    model = network(layers.LSTM(UNITS, name="lstm"))
    weights = model.layers[0].get_weights()
    weights[1][2, UNITS + 1] = np.nan
    model.layers[0].set_weights(weights)
    with pytest.warns(tt.ThroughTimeWarning, match="certificate of lstm is inf"):
        tree = tt.capture(model, X, Y)
    assert str(first_nonfinite(tree)) == "nan in recurrent_kernel of lstm: unit_from 2, gate forget, unit 1"
    without_weights = tree["lstm"].to_dataset().drop_vars("recurrent_kernel")
    found = first_nonfinite(without_weights)
    assert found is not None
    assert (found.variable, found.where["time"], found.where["gate"]) == ("gate_activation", 0, "forget")
    with pytest.raises(DiagnosticError, match=r"lstm is infinite.*first_nonfinite"):
        lag_profile(tree["lstm"])


def test_a_broken_input_is_located_at_its_step() -> None:
    broken = X.copy()
    broken[1, 4, 0] = np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        leaf = captured(layers.GRU(UNITS), broken)
    found = first_nonfinite(leaf)
    assert found is not None
    assert (found.variable, found.where) == ("input", {"sample": 1, "time": 4, "feature": 0})


# Masks and lengths


def masked(lengths: tuple[int, ...], layer: Any = None) -> xr.Dataset:
    x = np.where(np.arange(STEPS) < np.array(lengths)[:, None], 1, 0)[:, :, None] * np.abs(X)
    layer = layers.LSTM(UNITS, name="lstm") if layer is None else layer
    return next(iter(tt.capture(network(layers.Masking(), layer), x, Y).leaves)).to_dataset()


def test_a_fully_masked_sample_has_no_gradient_and_no_horizon() -> None:
    leaf = masked((6, 0, 4))
    assert leaf["valid"].sum("time").values.tolist() == [6, 0, 4]
    for name in ("hidden_gradient", "cell_gradient", "gate_gradient", "input_gradient", "step_contribution"):
        alone = leaf[name].isel(sample=1)
        assert not alone.any(), name
        assert leaf[name].isel(sample=2).any(), name
    assert float(leaf["certificate_weights"]) <= 1e-5
    assert float(leaf["certificate_time"]) <= 1e-5
    assert int(lag_profile(leaf)["no_steps"]) == 1
    assert horizon_text(memory_horizon(leaf)).values.tolist()[1] == "not measured"
    assert effective_steps(leaf)["k90"].isnull().values.tolist() == [False, True, False]


@pytest.mark.parametrize("kind", [layers.LSTM, layers.GRU, layers.SimpleRNN])
def test_a_batch_without_any_valid_step_is_not_measured(kind: Any) -> None:
    leaf = masked((0, 0, 0), kind(UNITS))
    assert np.isnan(leaf["certificate_weights"])
    assert np.isnan(leaf["certificate_time"])
    profile = lag_profile(leaf)
    assert int(profile["no_steps"]) == SAMPLES
    assert profile["ratio"].isnull().all()
    assert horizon_text(memory_horizon_median(leaf)).item() == "not measured"


def test_a_sequence_of_no_steps_is_no_batch() -> None:
    model = keras.Sequential([keras.Input((None, FEATURES)), layers.GRU(UNITS), layers.Dense(1)])
    with pytest.raises(tt.BatchError, match=r"\(3, 0, 2\)"):
        tt.capture(model, X[:, :0], Y, loss="mse")


def test_a_single_step_has_lag_0_only() -> None:
    model = keras.Sequential(
        [keras.Input((None, FEATURES)), layers.LSTM(UNITS, name="lstm"), layers.Dense(1)]
    )
    leaf = tt.capture(model, X[:, :1], Y, loss="mse")["lstm"].to_dataset()
    assert horizon_text(memory_horizon(leaf)).values.tolist() == ["≥ 0"] * SAMPLES
    assert float(leaf["certificate_time"]) <= 1e-5


def test_a_lag_beyond_the_window_is_censored_and_never_a_number() -> None:
    profile = lag_profile(captured(layers.GRU(UNITS)), lags=[STEPS - 1, STEPS, 10 * STEPS])
    assert profile["ratio"].isnull().values.tolist() == [False, True, True]
    assert profile["low"].isnull().values.tolist() == [False, True, True]
    assert profile["censored"].values.tolist() == [False, True, True]
    assert ratio_text(profile, 10 * STEPS) == "censored at 5: no sample is longer"


def test_lags_count_each_samples_own_valid_steps() -> None:
    profile = lag_profile(masked((6, 3, 2)))
    assert profile["samples"].values.tolist() == [3, 3, 2, 1, 1, 1]
    horizon = memory_horizon(masked((6, 3, 2)), threshold=1e-6)
    assert horizon_text(horizon).values.tolist() == ["≥ 5", "≥ 2", "≥ 1"]


# Trees that lack what a measure needs


@pytest.mark.parametrize(
    ("measure", "variable"),
    [
        (lag_profile, "hidden_gradient"),
        (memory_horizon, "hidden_gradient"),
        (vanishing_fraction, "hidden_gradient"),
        (gradient_instability, "hidden_gradient"),
        (temporal_coherence, "hidden"),
        (effective_steps, "step_contribution"),
        (timescale, "gate_activation"),
        (saturation, "gate_activation"),
        (lyapunov_spectrum, "kernel"),
    ],
)
def test_what_was_not_captured_is_named_with_what_was(measure: Any, variable: str) -> None:
    leaf = captured(layers.GRU(UNITS, name="gru"), quantities="output_gradient")
    said = f"No '{variable}' for gru: it was not captured. It has: output_gradient"
    with pytest.raises(tt.SchemaError, match=said):
        measure(leaf)


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.5, 2, np.nan])
def test_thresholds_lie_between_0_and_1(threshold: float) -> None:
    leaf = captured(layers.GRU(UNITS), quantities="hidden_gradient")
    for measure in (memory_horizon, memory_horizon_median, vanishing_fraction):
        with pytest.raises(DiagnosticError, match="from 0 to 1, both excluded"):
            measure(leaf, threshold=threshold)


# Half precision


def halving(activation: str, x: np.ndarray) -> xr.Dataset:
    """One unit that halves the gradient at every step, in mixed_float16; the loss is its last output."""
    layer = layers.SimpleRNN(1, activation, dtype="mixed_float16", name="rnn")
    model = keras.Sequential([keras.Input(x.shape[1:]), layer])
    layer.set_weights([np.ones((1, 1)), np.full((1, 1), 0.5), np.zeros(1)])

    def last_output(y_true: Any, y_pred: Any) -> Any:
        return ops.sum(ops.cast(y_pred, "float32"), axis=-1)

    return tt.capture(model, x, np.ones((len(x), 1)), loss=last_output)["rnn"].to_dataset()


def test_half_precision_underflow_is_told_apart_from_an_exact_zero() -> None:
    steps = 30
    x = np.ones((2, steps, 1), "float32")
    lost = vanishing_fraction(halving("linear", x))
    assert lost["underflow"].values.tolist() == [0.0] * 15 + [1.0] * (steps - 15)  # below 2⁻¹⁴
    assert not lost["zero"].any()
    shut = x.copy()
    shut[:, steps - 5] = -9.0  # relu lets nothing through at this step
    lost = vanishing_fraction(halving("relu", shut))
    assert lost["zero"].values.tolist() == [0.0] * 5 + [1.0] * (steps - 5)
    assert not lost["underflow"].any()


def test_half_precision_keeps_its_certificate() -> None:
    leaf = captured(layers.LSTM(UNITS, dtype="mixed_float16"))
    assert leaf.attrs["dtype"] == "float16"
    assert max(float(leaf["certificate_weights"]), float(leaf["certificate_time"])) <= 1e-2
