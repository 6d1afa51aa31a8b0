"""The loss of each step against the states before it, compared with captures of one loss step at a time."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from functools import cache
from typing import Any

import keras
import numpy as np
import pytest
import xarray as xr
from keras import layers
from tests.keras.comparison import difference

import throughtime as tt
from throughtime._capture import lag_matrix
from throughtime.diagnostics import lag_profile

SAMPLES, STEPS, FEATURES, UNITS = 3, 8, 2, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(SAMPLES, STEPS, FEATURES)).astype("float32")
Y = RNG.normal(size=(SAMPLES, STEPS, 2)).astype("float32")
MASKED = np.array([[1, 1, 0, 1, 1, 1, 0, 0], [1, 0, 1, 1, 0, 1, 1, 1], [1] * 8], bool)


def network(*middle: Any, inputs: Any = None, dtype: str = "float32") -> Any:
    """A chain with a loss at every step and seeded weights of order 0.5."""
    inputs = keras.Input((STEPS, FEATURES), dtype=dtype) if inputs is None else inputs
    value = inputs
    for layer in (*middle, layers.Dense(2, dtype=dtype)):
        value = layer(value)
    model = keras.Model(inputs, value)
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(0, 0.5, weight.shape) for weight in model.weights])
    model.compile(loss="mse")
    return model


@cache
def lstm() -> Any:
    return network(layers.LSTM(UNITS, return_sequences=True, name="upper"))


@cache
def gru() -> Any:
    return network(layers.GRU(UNITS, return_sequences=True, name="upper"))


@cache
def stack() -> Any:
    return network(
        layers.LSTM(UNITS, return_sequences=True, name="lower"),
        layers.GRU(UNITS, return_sequences=True, name="upper"),
    )


@cache
def both_directions() -> Any:
    return network(layers.Bidirectional(layers.LSTM(UNITS, return_sequences=True), name="upper"))


@cache
def masked() -> Any:
    return network(layers.Masking(), layers.LSTM(UNITS, return_sequences=True, name="upper"))


@cache
def reads_backwards() -> Any:
    return network(layers.GRU(UNITS, return_sequences=True, go_backwards=True, name="upper"))


@cache
def reads_backwards_and_is_turned_back() -> Any:
    backwards = layers.GRU(UNITS, return_sequences=True, go_backwards=True, name="upper")
    return network(backwards, layers.Lambda(lambda out: keras.ops.flip(out, axis=1)))


@cache
def one_state_for_all_batches() -> Any:
    layer = layers.LSTM(UNITS, return_sequences=True, stateful=True, name="upper")
    return network(layer, inputs=keras.Input(batch_shape=(SAMPLES, STEPS, FEATURES)))


MODELS = (lstm, gru, stack, both_directions, masked, reads_backwards, one_state_for_all_batches)


def batch(build: Callable[[], Any]) -> np.ndarray:
    return X * MASKED[:, :, None] if build is masked else X


@cache
def one_by_one(build: Callable[[], Any]) -> dict[str, list[xr.Dataset]]:
    """A capture for every step with only that step's loss, by layer."""
    probe = tt.Probe(build(), quantities=["hidden_gradient", "cell_gradient"][: 1 + has_cell(build)])
    weights = np.broadcast_to(np.eye(STEPS, dtype="float32")[:, None], (STEPS, SAMPLES, STEPS))
    trees = [probe(batch(build), Y, sample_weight=each) for each in weights]
    return {node.path: [tree[node.path].to_dataset() for tree in trees] for node in trees[0].leaves}


def has_cell(build: Callable[[], Any]) -> bool:
    return build not in (gru, reads_backwards, reads_backwards_and_is_turned_back)


def joint_norm(leaf: xr.Dataset) -> xr.DataArray:
    squares = sum(
        (leaf[name] ** 2).sum("unit") for name in ("hidden_gradient", "cell_gradient") if name in leaf
    )
    return squares**0.5


@pytest.mark.parametrize("build", MODELS)
def test_every_row_is_the_capture_of_that_loss_alone(build: Callable[[], Any]) -> None:
    tree = tt.lag_matrix(build(), batch(build), Y)
    rows = one_by_one(build)
    assert {node.path for node in tree.leaves} == set(rows)
    for path, leaves in rows.items():
        matrix = tree[path]["lag_matrix"]
        assert matrix.dims[:3] == ("sample", "loss_time", "time")
        expected = np.stack([joint_norm(leaf).values for leaf in leaves], axis=1)
        assert difference(matrix, expected) <= 1e-5
        assert expected.max() > 1e-3


@pytest.mark.parametrize("build", MODELS)
def test_vectors_of_all_rows_sum_to_the_total_derivative(build: Callable[[], Any]) -> None:
    total = tt.capture(build(), batch(build), Y)
    for path, leaves in one_by_one(build).items():
        for name in ("hidden_gradient", "cell_gradient"):
            if name in leaves[0]:
                summed = sum(leaf[name].values for leaf in leaves)
                assert difference(summed, total[path][name]) <= 1e-5
                assert np.abs(summed).max() > 1e-3


def test_a_loss_reaches_no_later_state_in_any_layer_of_a_stack() -> None:
    for leaf in tt.lag_matrix(stack(), X, Y).leaves:
        matrix = leaf["lag_matrix"]
        later = matrix["loss_time"] < xr.DataArray(np.arange(STEPS), dims="time")
        assert not matrix.where(later, 0).any()
        assert (matrix.where(~later, 1) > 0).all()


def test_directions_are_mirror_images_and_stay_apart() -> None:
    matrix = tt.lag_matrix(both_directions(), X, Y)["upper"]["lag_matrix"]
    time = xr.DataArray(np.arange(STEPS), dims="time")
    forward, backward = (matrix.sel(direction=name) for name in ("forward", "backward"))
    assert not forward.where(matrix["loss_time"] < time, 0).any()
    assert not backward.where(matrix["loss_time"] > time, 0).any()
    profile = lag_profile(tt.lag_matrix(both_directions(), X, Y)["upper"])
    assert set(profile["ratio"].dims) == {"lag", "direction"}
    assert (profile["ratio"].sel(lag=0) == 1).all()


@pytest.mark.parametrize("build", [reads_backwards, reads_backwards_and_is_turned_back])
def test_loss_steps_of_a_layer_that_reads_backwards_count_its_input(build: Callable[[], Any]) -> None:
    leaf = tt.lag_matrix(build(), X, Y)["upper"].to_dataset()
    for step in range(STEPS):
        reached = leaf["lag_matrix"].sel(loss_time=step).any("sample")
        assert reached.values.tolist() == [False] * step + [True] * (STEPS - step)
    own = [leaf["lag_matrix"].sel(loss_time=step, time=step).mean() for step in range(STEPS)]
    np.testing.assert_allclose(leaf["lag_mean"].sel(lag=0), np.mean(own), rtol=1e-6)
    assert leaf["lag_mean"].all()
    assert not lag_profile(leaf)["censored"].any()


def test_masked_steps_are_no_lags() -> None:
    leaf = tt.lag_matrix(masked(), batch(masked), Y)["upper"].to_dataset()
    np.testing.assert_array_equal(leaf["valid"], MASKED)
    assert not leaf["lag_matrix"].values[~MASKED].any()
    # Of the first sample the second valid step back from step 3 is step 0: step 2 only copies.
    row = leaf["lag_matrix"].isel(sample=0, loss_time=3)
    profile = lag_profile(leaf.isel(sample=[0], loss_time=[3]))["ratio"]
    np.testing.assert_allclose(profile[:3], row[[3, 1, 0]] / row[3], rtol=1e-6)
    assert profile[3:].isnull().all()


@pytest.mark.parametrize("memory", [1, 2**14])
def test_chunks_do_not_change_the_matrix(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = stack()
    whole = tt.lag_matrix(model, X, Y)
    passes = counted_passes(monkeypatch)
    in_chunks = tt.lag_matrix(model, X, Y, memory=memory)
    assert len(passes) > 2
    assert memory > 1 or passes == [SAMPLES] * (STEPS + 1)
    for leaf in whole.leaves:
        assert difference(in_chunks[leaf.path]["lag_matrix"], leaf["lag_matrix"]) <= 1e-6
        # Single rows too, also those at the end of a chunk that was filled up.
        np.testing.assert_allclose(in_chunks[leaf.path]["lag_matrix"], leaf["lag_matrix"], rtol=1e-4)


def counted_passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Samples of every pass from now on."""
    passes: list[int] = []

    class Counting(tt.Probe):
        def __call__(self, x: Any, y: Any = None, **keywords: Any) -> xr.DataTree:
            passes.append(len(x))
            return super().__call__(x, y, **keywords)

    monkeypatch.setattr(lag_matrix, "Probe", Counting)
    return passes


def test_random_loss_steps_estimate_the_mean_with_the_error_they_state() -> None:
    steps, drawn = 24, 8
    rng = np.random.default_rng(2)
    x, y = (rng.normal(size=(2, steps, width)).astype("float32") for width in (FEATURES, 2))
    model = network(
        layers.GRU(UNITS, return_sequences=True, name="gru"), inputs=keras.Input((steps, FEATURES))
    )
    every = tt.lag_matrix(model, x, y)["gru"].isel(lag=slice(0, 6))
    assert not every["lag_mean_error"].any()
    scores, estimates = [], []
    for seed in range(40):
        some = tt.lag_matrix(model, x, y, loss_steps=drawn, seed=seed)
        assert some.attrs["loss_steps"] == "8 of 24"
        leaf = some["gru"].isel(lag=slice(0, 6))
        assert leaf.sizes["loss_time"] == drawn
        estimates.append(leaf["lag_mean"].values)
        scores.append((leaf["lag_mean"] - every["lag_mean"]) / leaf["lag_mean_error"])
    np.testing.assert_allclose(np.nanmean(estimates, axis=0), every["lag_mean"], rtol=0.2)
    scores = np.array(scores)
    assert abs(np.nanmean(scores)) < 0.3
    assert 0.85 <= np.nanmean(np.abs(scores) < 2) <= 0.99


def test_rows_of_a_draw_are_those_of_the_whole() -> None:
    model = lstm()
    every, some = tt.lag_matrix(model, X, Y)["upper"], tt.lag_matrix(model, X, Y, loss_steps=3)["upper"]
    chosen = some["loss_time"].values
    assert len(set(chosen)) == 3
    expected = every["lag_matrix"].sel(loss_time=chosen)
    np.testing.assert_allclose(some["lag_matrix"], expected, rtol=1e-4)
    again, other = (tt.lag_matrix(model, X, Y, loss_steps=3, seed=seed)["upper"] for seed in (0, 5))
    np.testing.assert_array_equal(again["loss_time"], chosen)
    assert not np.array_equal(other["loss_time"], chosen)


def test_four_hundred_steps_of_sixty_four_units_fit_their_memory() -> None:
    steps, units, memory = 400, 64, 2**26
    rng = np.random.default_rng(3)
    x, y = (rng.normal(size=(1, steps, width)).astype("float32") for width in (FEATURES, 2))
    model = network(
        layers.LSTM(units, return_sequences=True, name="lstm"), inputs=keras.Input((steps, FEATURES))
    )
    tt.lag_matrix(model, x, y, loss_steps=1)  # what is imported and traced once is not counted
    tracemalloc.start()
    try:
        matrix = tt.lag_matrix(model, x, y, memory=memory)["lstm"]["lag_matrix"]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert matrix.shape == (1, steps, steps)
    assert peak <= memory + matrix.nbytes
    assert not np.triu(matrix[0], 1).any()
    assert np.diagonal(matrix[0]).all()


def test_a_capture_gives_the_lag_matrix_when_it_is_asked_for() -> None:
    model = stack()
    alone = tt.capture(model, X, Y, quantities=["lag_matrix"])
    together = tt.capture(model, X, Y, quantities=["lag_matrix", "output"])
    expected = tt.lag_matrix(model, X, Y)
    for leaf in expected.leaves:
        for tree in (alone, together):
            np.testing.assert_array_equal(tree[leaf.path]["lag_matrix"], leaf["lag_matrix"])
            assert "hidden_gradient" not in tree[leaf.path]
        assert "output" in together[leaf.path]
        assert "output" not in alone[leaf.path]
    assert not [leaf for leaf in tt.capture(model, X, Y).leaves if "lag_matrix" in leaf]


@pytest.mark.parametrize("labels", [Y[:, 0, 0], Y[:, 0, :1], None])
def test_labels_without_time_have_one_row_only(labels: Any) -> None:
    model = keras.Sequential([keras.Input((STEPS, FEATURES)), layers.LSTM(UNITS), layers.Dense(2)])
    with pytest.raises(tt.LossError, match=r"time axis.*hidden_gradient, which is the only row"):
        tt.lag_matrix(model, X, labels, loss="mse")


def squared(y_true: Any, y_pred: Any) -> Any:
    return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)


@pytest.mark.parametrize("samples", [1, SAMPLES])
@pytest.mark.parametrize("loss", ["mse", keras.losses.mean_squared_error, squared])
def test_a_loss_by_name_or_a_function_of_each_step_gives_the_same_matrix(loss: Any, samples: int) -> None:
    x, y = X[:samples], Y[:samples]
    expected = tt.lag_matrix(lstm(), x, y)["upper"]["lag_matrix"]
    found = tt.lag_matrix(lstm(), x, y, loss=loss, memory=1)["upper"]["lag_matrix"]
    assert difference(found, expected) <= 1e-6


@pytest.mark.parametrize("samples", [1, SAMPLES])
def test_a_loss_with_one_value_a_sample_has_no_steps(samples: int) -> None:
    def whole(y_true: Any, y_pred: Any) -> Any:
        return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=(1, 2))

    with pytest.raises(tt.LossError, match="sample weights"):
        tt.lag_matrix(lstm(), X[:samples], Y[:samples], loss=whole, memory=1)


def test_a_loss_that_is_one_number_has_no_steps() -> None:
    with pytest.raises(tt.LossError, match="returned a scalar"):
        tt.lag_matrix(lstm(), X, Y, loss=lambda y_true, y_pred: keras.ops.mean((y_true - y_pred) ** 2))


class Contrast(keras.Model):
    """Compares each sample with the mean of the batch."""

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        error = keras.ops.mean(keras.ops.square(y - y_pred), axis=-1) * sample_weight
        return keras.ops.square(keras.ops.sum(error))


def test_a_loss_that_couples_samples_has_no_steps_of_one_sample() -> None:
    inputs = keras.Input((STEPS, FEATURES))
    model = Contrast(inputs, layers.Dense(2)(layers.LSTM(UNITS, return_sequences=True)(inputs)))
    with pytest.raises(tt.LossError, match="couples samples"):
        tt.lag_matrix(model, X, Y)


@pytest.mark.parametrize("loss_steps", [0, -1])
def test_no_loss_steps_at_all_are_refused(loss_steps: int) -> None:
    with pytest.raises(tt.LossError, match=rf"loss_steps={loss_steps}: expected a whole number, 1 or more"):
        tt.lag_matrix(lstm(), X, Y, loss_steps=loss_steps)


def test_more_loss_steps_than_there_are_mean_all_of_them() -> None:
    assert tt.lag_matrix(lstm(), X, Y, loss_steps=500)["upper"].sizes["loss_time"] == STEPS
