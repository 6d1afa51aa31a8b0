"""Every kind of recurrent cell against the same layer restarted at each step: `restarts`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from tests import custom_cells as own
from tests.keras.comparison import computing_in, difference
from tests.keras.restarts import Direction, Found, slope, total_gradients

import throughtime as tt

layers = keras.layers
B, T, M, N = 3, 4, 2, 3
MASK = np.array([[1, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 0]], bool)  # gaps, ends, a masked start
SEQUENCES = {"return_sequences": True}
BACKWARDS = {"go_backwards": True}
NAMES = {
    "LSTMCell": ("hidden", "cell"),
    "ConvLSTMCell": ("hidden", "cell"),
    "LayerNormLSTMCell": ("state_0", "state_1"),
    "TwoStateCell": ("state_0", "state_1"),
    "NamedStatesCell": ("fast", "slow"),
}


@dataclass(frozen=True)
class Case:
    """A recurrent layer, the shape of one sample, and how it is called."""

    layer: Callable[..., Any]
    shape: tuple[int, ...] = (T, M)
    masked: bool = False
    given: bool = False  # the states it starts from are inputs of the model
    training: bool = False


def rnn(cell: Any, **settings: Any) -> Callable[..., Any]:
    return lambda: layers.RNN(cell(), name="recurrent", return_state=True, **settings)


def of(layer: Any, *arguments: Any, **settings: Any) -> Callable[..., Any]:
    return lambda: layer(*arguments, name="recurrent", return_state=True, **settings)


def both(inner: Callable[..., Any], **settings: Any) -> Callable[..., Any]:
    return lambda: layers.Bidirectional(inner(), name="recurrent", **settings)


def stack(*cells: Any) -> Callable[..., Any]:
    return lambda: layers.StackedRNNCells([cell(N + k) for k, cell in enumerate(cells)])


def decay() -> Any:
    return own.DecayCell(N)


@keras.saving.register_keras_serializable("throughtime_tests")
def double_sigmoid(value: Any) -> Any:
    return ops.sigmoid(2 * value)


LSTM, GRU, SIMPLE = layers.LSTMCell, layers.GRUCell, layers.SimpleRNNCell
DROPPED = {"dropout": 0.4, "recurrent_dropout": 0.4}
CASES = {
    "two_states_masked": Case(rnn(lambda: own.TwoStateCell(N), **SEQUENCES), masked=True),
    "one_state": Case(rnn(decay, **SEQUENCES)),
    "one_state_masked": Case(rnn(decay, **SEQUENCES, **BACKWARDS), masked=True),
    "named_states_masked": Case(rnn(lambda: own.NamedStatesCell(N)), masked=True),
    "two_states": Case(rnn(lambda: own.TwoStateCell(N), **SEQUENCES), given=True),
    "layer_norm_masked": Case(rnn(lambda: own.LayerNormLSTMCell(N), **BACKWARDS), masked=True),
    "memory_attention": Case(
        rnn(lambda: own.MemoryAttentionCell(N), **SEQUENCES, zero_output_for_mask=True), masked=True
    ),
    "feature_attention": Case(rnn(lambda: own.FeatureAttentionCell(N))),
    "conv_1d": Case(of(layers.ConvLSTM1D, 2, 3, **SEQUENCES), (T, 5, M)),
    "conv_2d_backwards": Case(
        of(layers.ConvLSTM2D, 2, 2, **SEQUENCES, **BACKWARDS), (T, 3, 3, M), given=True
    ),
    "conv_2d": Case(of(layers.ConvLSTM2D, 2, 2, padding="same"), (T, 3, 3, M)),
    "conv_3d": Case(of(layers.ConvLSTM3D, 2, 2), (T, 3, 3, 3, M)),
    "stack_of_three": Case(rnn(stack(GRU, SIMPLE, LSTM), **BACKWARDS), given=True),
    "stack_of_two_masked": Case(rnn(stack(LSTM, GRU), **SEQUENCES), masked=True),
    "stack_of_own_cells": Case(rnn(stack(own.TwoStateCell, own.DecayCell), **SEQUENCES)),
    "lstm_gelu_masked": Case(of(layers.LSTM, N, activation="gelu", **SEQUENCES), masked=True),
    "gru_softmax": Case(of(layers.GRU, N, activation="softmax"), given=True),
    "gru_own_gate": Case(of(layers.GRU, N, recurrent_activation=double_sigmoid, reset_after=False)),
    "gru_dropout_masked": Case(of(layers.GRU, N, **DROPPED, **BACKWARDS), masked=True, training=True),
    "lstm_dropout": Case(of(layers.LSTM, N, **DROPPED, **SEQUENCES), training=True),
    "simple_rnn_dropout": Case(of(layers.SimpleRNN, N, **DROPPED), training=True),
    "both_directions_masked": Case(both(rnn(decay, **SEQUENCES)), masked=True),
    "both_directions_last_step": Case(both(of(layers.LSTM, N, activation="gelu"), merge_mode="sum")),
    "both_directions_of_a_stack": Case(both(rnn(stack(GRU, LSTM), **SEQUENCES))),
}
# On JAX compiling takes so long that every third case has to do.
RUN = list(CASES)[:: 3 if keras.backend.backend() == "jax" else 1]
# Keras' generic loop multiplies float64 in float32 elsewhere.
DTYPE, BAR = ("float64", 1e-12) if keras.backend.backend() == "tensorflow" else ("float32", 1e-5)


@dataclass(frozen=True)
class Built:
    """A model that returns all that its recurrent layer does, side by side, and a batch for it."""

    model: Any
    layer: Any
    x: list[np.ndarray]
    y: np.ndarray
    directions: list[Direction]


def pulled(y_true: Any, y_pred: Any) -> Any:
    """A loss whose gradient is the labels."""
    return ops.sum(y_true * y_pred, -1)


def data(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(keras.config.floatx())


def build(case: Case) -> Built:
    layer = case.layer()
    inputs, valid = keras.Input(batch_shape=(B, *case.shape)), keras.Input(batch_shape=(B, T), dtype="bool")
    keywords = {"mask": valid} if case.masked else {}
    layer(inputs)
    initial = keras.tree.flatten(layer.get_initial_state(batch_size=B)) if case.given else []
    starts = [keras.Input(batch_shape=state.shape) for state in initial]
    if case.given:
        nested = layer.get_initial_state(batch_size=B)
        keywords["initial_state"] = keras.tree.pack_sequence_as(nested, starts)
    returned = keras.tree.flatten(layer(inputs, **keywords))
    # Plain operations: they take no mask along.
    flat = ops.concatenate([ops.reshape(tensor, (B, -1)) for tensor in returned], -1)
    model = keras.Model([inputs, valid, *starts], flat)
    rng = np.random.default_rng(2)
    floats = [w for w in model.weights if "seed" not in w.path]
    for weight in floats:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    x = [data(3, B, *case.shape), MASK, *(data(4 + k, *state.shape) for k, state in enumerate(initial))]
    y = data(8, *flat.shape)
    return Built(model, layer, x, y, directions(case, layer, x, y, [tuple(each.shape) for each in returned]))


def directions(
    case: Case, layer: Any, x: list[np.ndarray], y: np.ndarray, shapes: list[Any]
) -> list[Direction]:
    """What the loss asks of each direction."""
    sizes = np.cumsum([np.prod(shape[1:]) for shape in shapes])[:-1]
    asked, *final = (part.reshape(shape) for part, shape in zip(np.split(y, sizes, 1), shapes, strict=True))
    halves = [layer.forward_layer, layer.backward_layer] if hasattr(layer, "forward_layer") else [layer]
    is_split = len(halves) > 1 and layer.merge_mode == "concat"
    per_half = np.split(asked, 2, -1) if is_split else [asked] * len(halves)
    count = len(final) // len(halves)
    return [
        Direction(
            half,
            x[0],
            _in_input_time(half, gradient, len(halves) > 1),
            final[count * k : count * (k + 1)],
            MASK if case.masked else None,
            x[2:] or None,
            case.training,
        )
        for k, (half, gradient) in enumerate(zip(halves, per_half, strict=True))
    ]


def _in_input_time(layer: Any, gradient: np.ndarray, is_half: bool) -> np.ndarray:
    """Bidirectional aligns its halves; a layer that runs backwards alone returns processing order."""
    if layer.return_sequences:
        return gradient[:, ::-1] if layer.go_backwards and not is_half else gradient
    full = np.zeros((B, T, *gradient.shape[1:]), gradient.dtype)
    full[:, 0 if layer.go_backwards else -1] = gradient
    return full


def names_of(cell: Any) -> tuple[str, ...]:
    return NAMES.get(type(cell).__name__, ("hidden",))


def expected(built: Built) -> dict[str, dict[str, np.ndarray]]:
    """Variables of each leaf, by its path."""
    found = [total_gradients(direction) for direction in built.directions]
    cells = built.directions[0].cells
    paths = ["recurrent"] if len(cells) == 1 else [f"recurrent/{place}" for place in range(len(cells))]
    tree = {
        path: of_cell(names_of(cell), place, found)
        for place, (path, cell) in enumerate(zip(paths, cells, strict=True))
    }
    tree[paths[0]]["input_gradient"] = np.sum([each.input_gradient for each in found], axis=0)
    return tree


def of_cell(names: tuple[str, ...], place: int, found: list[Found]) -> dict[str, np.ndarray]:
    arrays = {}
    for k, name in enumerate(names):
        arrays[name] = joined([each.states[place][k] for each in found], 2)
        arrays[f"{name}_gradient"] = joined([each.gradients[place][k] for each in found], 2)
        arrays[f"initial_{name}_gradient"] = joined([each.initial_gradients[place][k] for each in found], 1)
    return arrays


def joined(by_direction: list[np.ndarray], axis: int) -> np.ndarray:
    return by_direction[0] if len(by_direction) == 1 else np.stack(by_direction, axis)


@pytest.mark.parametrize("name", RUN)
def test_gradients_of_states_are_those_of_the_layer_restarted(name: str) -> None:
    case = CASES[name]
    with computing_in(DTYPE):
        built = build(case)
        tree = tt.capture(built.model, built.x, built.y, loss=pulled, training=case.training)
        right = expected(built)
        assert {node.path for node in tree.leaves} == {f"/{path}" for path in right}
        for path, arrays in right.items():
            check_arrays(tree[path].to_dataset(), arrays)
        if DTYPE == "float64":
            check_slopes(tree, built)


def check_arrays(dataset: Any, arrays: dict[str, np.ndarray]) -> None:
    found = {name: difference(dataset[name].values, array) for name, array in arrays.items()}
    assert {name: value for name, value in found.items() if not value <= BAR} == {}
    assert all(np.abs(array).max() > 1e-4 for array in arrays.values()), "nothing was compared"
    # What the cell does not have is not there either.
    gradients = {
        str(name)
        for name in dataset.data_vars
        if str(name).startswith("initial_") and str(name).endswith("_gradient")
    }
    assert gradients == {name for name in arrays if name.startswith("initial_")}


def check_slopes(tree: Any, built: Built) -> None:
    """Real differences of the loss, along a random direction in the states of each cell after one step."""
    for way, direction in enumerate(built.directions):
        for place, cell in enumerate(direction.cells):
            dataset = tree[f"recurrent/{place}" if len(direction.cells) > 1 else "recurrent"].to_dataset()
            if len(built.directions) > 1:
                dataset = dataset.isel(direction=way)
            t = 1
            gradients = [dataset[f"{name}_gradient"][:, direction.at(t)].values for name in names_of(cell)]
            along = [data(9 + k, *gradient.shape) for k, gradient in enumerate(gradients)]
            slopes = [np.sum(gradient * each) for gradient, each in zip(gradients, along, strict=True)]
            assert sum(slopes) == pytest.approx(slope(direction, t, place, along), rel=1e-9)


def test_gate_gradients_carried_by_the_kernel_are_the_input_gradient() -> None:
    """With as many features as gates there is one way only to have this input gradient."""
    features = 4 * N
    inputs = keras.Input((T, features))
    made = [
        layers.LSTM(N, activation="gelu", name="lstm"),
        layers.GRU(N, activation="softmax", reset_after=False, name="gru"),
        layers.RNN([LSTM(N), LSTM(N)], name="stack"),
    ]
    model = keras.Model(inputs, ops.concatenate([layer(inputs) for layer in made], -1))
    tree = tt.capture(model, data(3, B, T, features), data(8, B, 3 * N), loss=pulled)
    np.testing.assert_array_equal(tree["stack/1"]["input"].values, tree["stack/0"]["hidden"].values)
    for path in ("lstm", "gru", "stack/0", "stack/1"):
        dataset = tree[path].to_dataset()
        carried = np.einsum("stgu,fgu->stf", dataset["gate_gradient"].values, dataset["kernel"].values)
        assert difference(carried, dataset["input_gradient"].values) <= 1e-5, path
