"""Everything after the tree works on JAX programs: diagnosis, lag matrix, summaries, parts of a batch."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from flax import nnx
from tests.jax.programs import STEPS, UNITS, Folded, Reader, U, W, X, Y, bare, rnn, squared

import throughtime as tt


def tagger(x: Any) -> Any:
    def step(hidden: Any, now: Any) -> Any:
        return (jnp.tanh(now @ W + hidden @ U),) * 2

    return jnp.swapaxes(jax.lax.scan(step, jnp.zeros((x.shape[0], UNITS)), jnp.swapaxes(x, 0, 1))[1], 0, 1)


def test_the_lag_matrix_is_that_of_the_unrolled_loop() -> None:
    y = np.zeros((len(X), STEPS, UNITS))
    lags = tt.lag_matrix(tagger, X, y, loss=lambda output, y: jnp.sum((output - y) ** 2, -1))
    (leaf,) = lags.leaves

    def loss(zeros: Any, step: int) -> Any:
        hidden, states = jnp.zeros((len(X), UNITS)), []
        for t in range(STEPS):
            hidden = jnp.tanh(X[:, t] @ W + hidden @ U) + zeros[:, t]
            states.append(hidden)
        return jnp.sum(states[step] ** 2)

    wanted = jax.grad(loss)(jnp.zeros((len(X), STEPS, UNITS)), 4)
    norms = np.linalg.norm(wanted, axis=-1)
    found = leaf["lag_matrix"].sel(loss_time=4)
    np.testing.assert_allclose(found / found[:, 4], norms / norms[:, 4:5], rtol=1e-10)


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_a_loss_that_averages_steps_is_that_of_each_step(factor: float) -> None:
    y = np.random.default_rng(1).normal(size=(len(X), STEPS, UNITS))
    y[:, 2] = np.nan  # a step without labels, which the mean leaves out

    def mean(output: Any, y: Any) -> Any:
        has_label = ~jnp.isnan(y)
        return factor * jnp.sum(jnp.where(has_label, output - y, 0.0) ** 2) / jnp.sum(has_label)

    def loss(zeros: Any, step: int) -> Any:
        hidden, states = jnp.zeros((len(X), UNITS)), []
        for t in range(STEPS):
            hidden = jnp.tanh(X[:, t] @ W + hidden @ U) + zeros[:, t]
            states.append(hidden)
        return factor * jnp.sum(jnp.mean((states[step] - y[:, step]) ** 2, -1))

    (leaf,) = tt.lag_matrix(tagger, X, y, loss=mean).leaves
    norms = np.linalg.norm(jax.grad(loss)(jnp.zeros((len(X), STEPS, UNITS)), 4), axis=-1)
    np.testing.assert_allclose(leaf["lag_matrix"].sel(loss_time=4), norms / STEPS, rtol=1e-9, atol=1e-12)
    assert not leaf["lag_matrix"].sel(loss_time=2).any()
    losses = tt.Probe(tagger, loss=mean).losses(X, y, step=4)
    np.testing.assert_allclose(
        losses, factor * np.mean((tagger(X)[:, 4] - y[:, 4]) ** 2, -1) / STEPS, rtol=1e-9
    )


def test_a_loss_that_couples_steps_has_none_of_each() -> None:
    y = np.zeros((len(X), STEPS, UNITS))
    y[:, ::2] = 5.0
    with pytest.raises(tt.LossError, match="couples"):
        tt.lag_matrix(tagger, X, y, loss=lambda output, y: jnp.sqrt(jnp.mean((output - y) ** 2)))


def test_losses_of_single_samples_are_evaluated() -> None:
    model = Reader(rnn(nnx.GRUCell))
    found = tt.Probe(model, loss=squared).losses(X, Y)
    np.testing.assert_allclose(found, np.asarray(squared(model(jnp.asarray(X)), Y))[:, 0], rtol=1e-12)
    of_equinox = Folded(eqx.nn.GRUCell)
    found = tt.Probe(of_equinox, loss=lambda output, y: jnp.mean((output - y) ** 2)).losses(X, Y)
    np.testing.assert_allclose(found, squared(jax.vmap(of_equinox)(X), Y)[:, 0], rtol=1e-12)


def test_a_diagnosis_is_made() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 12, X.shape[2])), rng.normal(size=(16, 1))
    found = tt.diagnose(Reader(rnn(nnx.LSTMCell)), x, y, loss=squared, dependency_length=6)
    assert found.layers["layers/0"].reach.answer in ("yes", "no", "unclear")
    assert str(found)


def test_cells_are_described_without_running_them() -> None:
    model = Reader(rnn(nnx.OptimizedLSTMCell), rnn(nnx.SimpleCell, UNITS))
    tree = tt.capture(model, X, Y, loss=squared)
    for place, kind in (("layers/0", "lstm"), ("layers/1", "simple_rnn")):
        found = tt.weights(model, place)
        assert found.attrs["kind"] == kind
        for name in found:
            np.testing.assert_array_equal(found[name], tree[place][name])
    assert "lstm" in str(tt.summary(model)).lower()
    assert tt.weights(Folded(eqx.nn.GRUCell))["recurrent_bias"].dims == ("gate", "unit")


def test_weights_and_gradients_are_those_of_the_module() -> None:
    model = Folded(eqx.nn.GRUCell)
    (leaf,) = tt.capture(model, X, Y, loss=squared).leaves
    wanted = jax.grad(lambda model: jnp.mean(squared(jax.vmap(model)(X), Y)))(model).cell
    stacked = leaf["recurrent_kernel_gradient"].sel(gate=["reset", "update", "candidate"])
    np.testing.assert_allclose(stacked.values.reshape(UNITS, -1).T, wanted.weight_hh, rtol=1e-12, atol=1e-16)
    of_update = leaf["bias_gradient"].sel(gate="update")
    np.testing.assert_allclose(of_update, wanted.bias[UNITS : 2 * UNITS], rtol=1e-12)
    assert not leaf["recurrent_bias"].sel(gate=["update", "reset"]).any()
    np.testing.assert_array_equal(leaf["recurrent_bias"].sel(gate="candidate"), model.cell.bias_n)


def test_a_batch_that_is_too_large_is_captured_in_parts() -> None:
    x, y = np.repeat(X, 8, 0), np.repeat(Y, 8, 0)
    whole = tt.capture(bare, x, y, loss=squared)
    parts = tt.capture(bare, x, y, loss=squared, budget=60_000)
    assert parts.attrs["chunks"] > 1
    for name in ("hidden", "hidden_gradient", "input_gradient"):
        (one,), (other,) = whole.leaves, parts.leaves
        np.testing.assert_allclose(one[name], other[name], rtol=1e-12)


def test_weighted_samples_count_as_their_weights_say() -> None:
    weight = np.array([0.0, 1.0, 3.0])
    (leaf,) = tt.capture(bare, X, Y, loss=squared, sample_weight=weight).leaves
    (plain,) = tt.capture(bare, X, Y, loss=squared).leaves
    np.testing.assert_allclose(
        leaf["hidden_gradient"], plain["hidden_gradient"] * xr.DataArray(weight, dims="sample")
    )


@pytest.mark.parametrize(
    "model", [Reader(rnn(nnx.GRUCell)), Folded(eqx.nn.GRUCell), bare], ids=["nnx", "eqx", "def"]
)
def test_without_labels_states_are_shown(model: Any) -> None:
    (leaf,) = tt.capture(model, X, quantities=["hidden", "input"]).leaves
    assert set(leaf.data_vars) >= {"hidden", "input"}
    (leaf,) = tt.capture(model, X).leaves
    assert "hidden_gradient" not in leaf
    assert "hidden" in leaf
