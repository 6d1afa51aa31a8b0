"""The support table of Keras 2: one row per case, each building a small model with seeded weights.

The same rows run in eager mode (`tests/tf_keras`) and in TensorFlow 1's graph mode (`tests/tf_keras_graph`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tests.tf_keras import own_layers
from tests.tf_keras.legacy import K, keras

L = keras.layers
B, T, M, N = 3, 5, 2, 3  # samples, steps, features, units


def squares(y: Any, prediction: Any) -> Any:
    return tf.reduce_mean(tf.square(y - prediction))


@dataclass(frozen=True)
class Case:
    """A model, its batch, its recurrent layers by path, and its loss written out."""

    model: Any
    x: Any
    y: Any
    layers: dict[str, Any]
    loss: Callable[[Any, Any], Any] = squares
    factor: float | None = 1 / B  # None where nothing is undone
    options: dict[str, Any] = field(default_factory=dict)  # of the capture

    def tensors(self) -> Any:
        return tf.nest.map_structure(tf.constant, self.x)


@dataclass(frozen=True)
class Row:
    """One case; `build()` makes it anew in Keras' floatx."""

    name: str
    group: str
    build: Callable[[], Case]
    oracle: str = "tensorflow"
    eager_only: bool = False


def normal(*shape: int, seed: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(K.floatx())


def seeded(model: Any, seed: int = 3) -> Any:
    """Give every weight values of order 0.5."""
    rng = np.random.default_rng(seed)
    model.set_weights([0.5 * rng.normal(size=w.shape).astype(w.dtype.as_numpy_dtype) for w in model.weights])
    return model


def compiled(model: Any, loss: Any = "mse", **options: Any) -> Any:
    model.compile(optimizer="sgd", loss=loss, **options)
    return model


KINDS = {
    "lstm": L.LSTM,
    "gru": L.GRU,
    "gru_reset_before": partial(L.GRU, reset_after=False),
    "simple_rnn": L.SimpleRNN,
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "last": {},
    "sequence": {"return_sequences": True},
    "backwards": {"return_sequences": True, "go_backwards": True},
    "backwards_last": {"go_backwards": True},
    "unrolled": {"return_sequences": True, "unroll": True},
    "without_bias": {"use_bias": False},
    "relu": {"activation": "relu", "return_sequences": True},
}


def padded_batch() -> np.ndarray:
    x = normal(B, T, M)
    x[1, 3:], x[2, 1:3] = 0.0, 0.0
    return x


def reader(
    make: Any, *, masked: bool = False, both: bool = False, merge: Any = "concat", **options: Any
) -> Case:
    layer = make(N, **options)
    layer = L.Bidirectional(layer, merge_mode=merge) if both else layer
    inputs = L.Input((T, M))
    output = layer(L.Masking()(inputs) if masked else inputs)
    output = L.Add()([L.Dense(2)(part) for part in output]) if merge is None else L.Dense(2)(output)
    model = compiled(seeded(keras.Model(inputs, output)))
    y = normal(B, T, 2, seed=7) if options.get("return_sequences") else normal(B, 2, seed=7)
    loss = masked_squares if masked and options.get("return_sequences") else squares
    path = "bidirectional" if both else layer.name.rstrip("_0123456789")
    return Case(model, padded_batch() if masked else normal(B, T, M), y, {path: layer}, loss)


def masked_squares(y: Any, prediction: Any) -> Any:
    """Keras' mean over the steps that are valid in `padded_batch`."""
    valid = tf.constant(np.any(padded_batch() != 0, -1), prediction.dtype)
    each = tf.reduce_mean(tf.square(y - prediction), -1)
    return tf.reduce_sum(each * valid) / tf.reduce_sum(valid)


GRID = [
    Row(f"{kind}_{layout}", "layers", partial(reader, make, **options))
    for (kind, make), (layout, options) in product(KINDS.items(), LAYOUTS.items())
]
GRID += [
    Row(f"{kind}_{layout}_masked", "masks", partial(reader, make, masked=True, **LAYOUTS[layout]))
    for (kind, make), layout in product(KINDS.items(), ("last", "sequence", "backwards", "unrolled"))
]
GRID += [
    Row(f"{kind}_both_{layout}{'_masked' if masked else ''}", "bidirectional", build)
    for (kind, make), layout, masked in product(KINDS.items(), ("last", "sequence"), (False, True))
    for build in [partial(reader, make, both=True, masked=masked, **LAYOUTS[layout])]
]
GRID += [
    Row(
        f"merged_by_{merge}",
        "bidirectional",
        partial(reader, L.GRU, both=True, merge=merge, **LAYOUTS["sequence"]),
    )
    for merge in ("sum", "mul", "ave", None)
]
GRID += [
    Row(f"lstm_{name}", "activations", partial(reader, L.LSTM, return_sequences=True, activation=name))
    for name in ("gelu", "swish", "softsign", "elu")
]
GRID += [
    Row(
        "lstm_hard_sigmoid",
        "activations",
        partial(reader, L.LSTM, return_sequences=True, recurrent_activation="hard_sigmoid"),
    )
]

SPECIALS: list[Row] = []


def special(group: str, *, eager_only: bool = False) -> Callable[[Callable[[], Case]], Callable[[], Case]]:
    def add(build: Callable[[], Case]) -> Callable[[], Case]:
        SPECIALS.append(Row(build.__name__, group, build, eager_only=eager_only))
        return build

    return add


@special("models")
def stack_of_three() -> Case:
    layers = {
        "lstm": L.LSTM(4, return_sequences=True),
        "gru": L.GRU(N, return_sequences=True),
        "simple_rnn": L.SimpleRNN(2),
    }
    model = compiled(seeded(keras.Sequential([L.Input((T, M)), *layers.values(), L.Dense(1)])))
    return Case(model, normal(B, T, M), normal(B, 1, seed=7), layers)


@special("models")
def subclassed() -> Case:
    model = own_layers.Encoder(N)
    model(tf.constant(normal(B, T, M)))
    layers = {
        "layers_of_it/0": model.layers_of_it[0],
        "layers_of_it/1": model.layers_of_it[1],
        "top": model.top,
    }
    return Case(compiled(seeded(model)), normal(B, T, M), normal(B, 1, seed=7), layers)


@special("models")
def nested() -> Case:
    inner = L.LSTM(N, return_sequences=True, name="inner")
    encoder = keras.Sequential([L.Input((T, M)), L.Dense(4), inner], name="encoder")
    top = L.GRU(2, name="top")
    inputs = L.Input((T, M))
    model = compiled(seeded(keras.Model(inputs, L.Dense(1)(top(encoder(inputs))))))
    return Case(model, normal(B, T, M), normal(B, 1, seed=7), {"encoder/inner": inner, "top": top})


@special("models")
def named_inputs() -> Case:
    left, right = L.Input((T, M), name="left"), L.Input((4, 1), name="right")
    layers = {"first": L.LSTM(N, name="first"), "second": L.GRU(2, name="second")}
    joined = L.Concatenate()([layers["first"](left), layers["second"](right)])
    model = compiled(seeded(keras.Model({"left": left, "right": right}, L.Dense(1)(joined))))
    return Case(
        model, {"left": normal(B, T, M), "right": normal(B, 4, 1, seed=8)}, normal(B, 1, seed=7), layers
    )


@special("models")
def embedded() -> Case:
    layer = L.LSTM(N, return_sequences=True)
    layers = [
        L.Input((T,), dtype="int32"),
        L.Embedding(7, 4, mask_zero=True),
        layer,
        L.GlobalAveragePooling1D(),
    ]
    model = compiled(seeded(keras.Sequential([*layers, L.Dense(1)])))
    x = np.array([[1, 2, 3, 4, 5], [6, 1, 0, 0, 0], [2, 2, 2, 0, 0]], "int32")
    return Case(model, x, normal(B, 1, seed=7), {"lstm": layer})


@special("states")
def encoder_decoder() -> Case:
    encoder = L.LSTM(N, return_state=True, name="encoder")
    decoder = L.LSTM(N, return_sequences=True, name="decoder")
    source, target = L.Input((T, M)), L.Input((4, 1))
    _, h, c = encoder(source)
    outputs = L.Dense(1)(decoder(target, initial_state=[h, c]))
    model = compiled(seeded(keras.Model([source, target], outputs)))
    x = [normal(B, T, M), normal(B, 4, 1, seed=8)]
    return Case(model, x, normal(B, 4, 1, seed=7), {"encoder": encoder, "decoder": decoder})


@special("states")
def both_with_states() -> Case:
    layer = L.Bidirectional(L.GRU(N, return_sequences=True, return_state=True))
    inputs, left, right = L.Input((T, M)), L.Input((N,)), L.Input((N,))
    output, forward, backward = layer(inputs, initial_state=[left, right])
    total = L.Concatenate()([L.Flatten()(output), forward, backward])
    model = compiled(seeded(keras.Model([inputs, left, right], L.Dense(1)(total))))
    x = [normal(B, T, M), normal(B, N, seed=8), normal(B, N, seed=9)]
    return Case(model, x, normal(B, 1, seed=7), {"bidirectional": layer})


def stateful(make: Any) -> Case:
    layer = make(N, stateful=True, return_sequences=True)
    inputs = L.Input(batch_shape=(B, T, M))
    model = compiled(seeded(keras.Model(inputs, L.Dense(1)(layer(inputs)))))
    layer.reset_states([normal(B, N, seed=20 + k) for k in range(len(layer.states))])
    return Case(model, normal(B, T, M), normal(B, T, 1, seed=7), {layer.name.rstrip("_0123456789"): layer})


SPECIALS += [Row(f"stateful_{kind}", "states", partial(stateful, make)) for kind, make in KINDS.items()]


@special("cells")
def convolutional() -> Case:
    layer = L.ConvLSTM2D(2, 3, padding="same", return_sequences=True)
    layers = [L.Input((4, 3, 3, 1)), layer, L.Flatten(), L.Dense(1)]
    model = compiled(seeded(keras.Sequential(layers)))
    return Case(model, normal(B, 4, 3, 3, 1), normal(B, 1, seed=7), {"conv_lstm2d": layer})


@special("cells")
def custom_cell() -> Case:
    layer = L.RNN(own_layers.MinimalGate(N), return_sequences=True)
    model = compiled(seeded(keras.Sequential([L.Input((T, M)), L.Masking(), layer, L.Dense(1)])))
    return Case(model, padded_batch(), normal(B, T, 1, seed=7), {"rnn": layer}, masked_squares)


@special("cells")
def cell_with_weights_in_a_list() -> Case:
    layer = L.RNN(own_layers.Listed(N))
    model = compiled(seeded(keras.Sequential([L.Input((T, M)), layer, L.Dense(1)])))
    return Case(model, normal(B, T, M), normal(B, 1, seed=7), {"rnn": layer})


@special("cells")
def cell_of_layers() -> Case:
    layer = L.RNN(own_layers.OfLayers(N))
    model = compiled(seeded(keras.Sequential([L.Input((T, M)), layer, L.Dense(1)])))
    return Case(model, normal(B, T, M), normal(B, 1, seed=7), {"rnn": layer})


@special("losses")
def sum_of_squares() -> Case:
    case = reader(L.LSTM)
    compiled(case.model, keras.losses.MeanSquaredError(reduction="sum"))
    loss = lambda y, p: tf.reduce_sum(tf.reduce_mean(tf.square(y - p), -1))  # noqa: E731
    return Case(case.model, case.x, case.y, case.layers, loss, factor=1.0)


@special("losses")
def passed_loss() -> Case:
    case = reader(L.GRU, return_sequences=True)
    loss = lambda y, p: tf.reduce_mean(tf.abs(y - p))  # noqa: E731
    return Case(case.model, case.x, case.y, case.layers, loss, options={"loss": loss})


@special("losses")
def two_outputs_with_weights() -> Case:
    layer = L.LSTM(N, return_sequences=True)
    inputs = L.Input((T, M))
    states = layer(inputs)
    outputs = [L.Dense(1, name="a")(states), L.Dense(2, name="b")(L.GlobalMaxPooling1D()(states))]
    model = seeded(keras.Model(inputs, outputs))
    compiled(model, {"a": "mse", "b": keras.losses.MeanAbsoluteError()}, loss_weights={"a": 0.3, "b": 2.0})
    y = [normal(B, T, 1, seed=7), normal(B, 2, seed=8)]

    def loss(labels: Any, predictions: Any) -> Any:
        a = tf.reduce_mean(tf.square(labels[0] - predictions[0]))
        return 0.3 * a + 2.0 * tf.reduce_mean(tf.abs(labels[1] - predictions[1]))

    return Case(model, normal(B, T, M), y, {"lstm": layer}, loss)


@special("losses")
def regularised_and_added() -> Case:
    layer = L.SimpleRNN(N, kernel_regularizer=keras.regularizers.L2(0.1))
    dense = L.Dense(2, activity_regularizer=keras.regularizers.L1(0.05))
    model = compiled(seeded(keras.Sequential([L.Input((T, M)), layer, dense])))

    def loss(y: Any, prediction: Any) -> Any:
        added = (
            0.1 * tf.reduce_sum(tf.square(layer.cell.kernel)) + 0.05 * tf.reduce_sum(tf.abs(prediction)) / B
        )
        return squares(y, prediction) + added

    return Case(model, normal(B, T, M), normal(B, 2, seed=7), {"simple_rnn": layer}, loss)


@special("losses")
def classes_by_softmax() -> Case:
    layer = L.GRU(N)
    layers = [L.Input((T, M)), layer, L.Dense(4, activation="softmax", name="classes")]
    model = compiled(seeded(keras.Sequential(layers)), "sparse_categorical_crossentropy")

    def loss(y: Any, prediction: Any) -> Any:
        return -tf.reduce_mean(tf.math.log(tf.gather(prediction, y, batch_dims=1)))

    return Case(model, normal(B, T, M), np.array([1, 3, 0]), {"gru": layer}, loss)


@special("losses", eager_only=True)
def own_compute_loss() -> Case:
    inputs, layer = L.Input((T, M)), L.LSTM(N)
    model = compiled(seeded(own_layers.OwnLoss(inputs, L.Dense(1)(layer(inputs)))))
    loss = lambda y, p: 3.0 * squares(y, p) + 0.1 * tf.reduce_mean(tf.square(p))  # noqa: E731
    return Case(model, normal(B, T, M), normal(B, 1, seed=7), {"lstm": layer}, loss)


@special("losses")
def coupled_samples() -> Case:
    case = reader(L.GRU)
    loss = lambda y, p: tf.reduce_mean(tf.square(tf.reduce_mean(p, 0) - tf.reduce_mean(y, 0)))  # noqa: E731
    return Case(case.model, case.x, case.y, case.layers, loss, None, {"loss": loss})


ROWS = [*GRID, *SPECIALS]


def runs(rows: list[Row], in_float32: list[Row]) -> list[Any]:
    """Parameters (row, dtype): each row in float64, which decides; those in float32 are slow."""
    return [pytest.param(row, "float64", id=f"{row.name}-float64") for row in rows] + [
        pytest.param(row, "float32", id=f"{row.name}-float32", marks=pytest.mark.slow) for row in in_float32
    ]
