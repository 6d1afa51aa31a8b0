"""The inside of recurrent layers, against the same layers unrolled by hand and differentiated by autodiff."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from tests.keras.comparison import difference
from tests.keras.unrolled import Unrolled, computing_in, gate_count, gradients, halves, zero_taps

import throughtime as tt

layers = keras.layers
B, T, M, N, K = 3, 5, 2, 3, 2
MASK = np.array([[1, 0, 1, 1, 0], [0, 1, 1, 0, 1], [1, 1, 0, 0, 1]], bool)  # gaps, ends, a masked start


@dataclass(frozen=True)
class Case:
    """A model, its batch, its recurrent layers by path, and the same forward pass by hand."""

    model: Any
    x: Any
    y: np.ndarray
    layers: dict[str, Any]
    forward: Callable[[Unrolled, Any], Any]


def data(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(keras.config.floatx())


def finished(inputs: Any, value: Any) -> Any:
    """The model with a head, seeded weights of order 0.5 and a loss."""
    model = keras.Model(inputs, layers.Dense(K, name="head")(value))
    rng = np.random.default_rng(2)
    model.set_weights([rng.normal(0, 0.5, w.shape) for w in model.weights])
    model.compile(loss=keras.losses.MeanSquaredError())
    return model


def head(model: Any, value: Any) -> Any:
    kernel, bias = (ops.convert_to_tensor(w.value) for w in model.get_layer("head").weights)
    return ops.matmul(value, kernel) + bias


def chain(*steps: Any, masked: bool = False) -> Case:
    """Layers on top of each other, the last one without sequences; masks travel as Keras sends them."""
    inputs, x = keras.Input((T, M)), data(B, T, M)
    value = layers.Masking()(inputs) if masked else inputs
    for step in steps:
        value = step(value)
    model = finished(inputs, value)
    mask = MASK if masked else None

    def forward(run: Unrolled, x: Any) -> Any:
        for step in steps:
            x, _ = run.run(step.name, step, x, mask)
        return head(model, x)

    x = x * MASK[:, :, None] if masked else x
    return Case(model, x, data(B, K, seed=1), {step.name: step for step in steps}, forward)


def stack() -> Case:
    return chain(
        layers.LSTM(N, return_sequences=True, name="lstm"),
        layers.GRU(N, return_sequences=True, name="gru"),
        layers.SimpleRNN(N, name="rnn"),
    )


def masked_stack() -> Case:
    return chain(
        layers.SimpleRNN(N, return_sequences=True, name="rnn"),
        layers.GRU(N, return_sequences=True, reset_after=False, name="gru"),
        layers.LSTM(N, name="lstm"),
        masked=True,
    )


def both_directions() -> Case:
    return chain(
        layers.Bidirectional(layers.GRU(N, return_sequences=True), merge_mode="sum", name="gru"),
        layers.Bidirectional(layers.LSTM(N), name="lstm"),
    )


def masked_both_directions() -> Case:
    return chain(
        layers.Bidirectional(layers.LSTM(N, return_sequences=True), name="lstm"),
        layers.Bidirectional(layers.GRU(N, reset_after=False), name="gru"),
        masked=True,
    )


def backwards() -> Case:
    return chain(
        layers.GRU(N, return_sequences=True, go_backwards=True, name="gru"),
        layers.LSTM(N, go_backwards=True, name="lstm"),
    )


def masked_backwards() -> Case:
    return chain(
        layers.LSTM(N, return_sequences=True, go_backwards=True, name="lstm"),
        layers.GRU(N, go_backwards=True, name="gru"),
        masked=True,
    )


def encoder_and_decoder(masked: bool = False) -> Case:
    """The decoder starts from the encoder's states; the loss reads its sequence and its final states."""
    encoder = layers.LSTM(N, return_state=True, name="encoder")
    decoder = layers.LSTM(N, return_sequences=True, return_state=True, name="decoder")
    source, target, valid = keras.Input((T, M)), keras.Input((T, M)), keras.Input((T,), dtype="bool")
    mask = MASK if masked else None
    output, h, c = encoder(source, mask=valid if masked else None)
    sequence, last_h, last_c = decoder(target, initial_state=[h, c], mask=valid if masked else None)
    # Plain operations: they take no mask along.
    seen = ops.concatenate([ops.reshape(sequence, (-1, T * N)), output, last_h, last_c], -1)
    model = finished([source, target, valid], seen)

    def forward(run: Unrolled, x: Any) -> Any:
        output, states = run.run("encoder", encoder, x[0], mask)
        sequence, final = run.run("decoder", decoder, x[1], mask, states)
        return head(model, ops.concatenate([ops.reshape(sequence, (B, T * N)), output, *final], -1))

    x = [data(B, T, M), data(B, T, M, seed=3), MASK]
    return Case(model, x, data(B, K, seed=1), {"encoder": encoder, "decoder": decoder}, forward)


def masked_encoder_and_decoder() -> Case:
    return encoder_and_decoder(masked=True)


def gru_given_its_state() -> Case:
    gru = layers.GRU(N, return_sequences=True, return_state=True, name="gru")
    inputs, start = keras.Input((T, M)), keras.Input((N,))
    sequence, state = gru(inputs, initial_state=layers.Dense(N, name="start")(start))
    model = finished([inputs, start], layers.Concatenate()([layers.Flatten()(sequence), state]))

    def forward(run: Unrolled, x: Any) -> Any:
        kernel, bias = (ops.convert_to_tensor(w.value) for w in model.get_layer("start").weights)
        sequence, (state,) = run.run("gru", gru, x[0], None, [ops.matmul(x[1], kernel) + bias])
        return head(model, ops.concatenate([ops.reshape(sequence, (B, T * N)), state], -1))

    return Case(model, [data(B, T, M), data(B, N, seed=4)], data(B, K, seed=1), {"gru": gru}, forward)


def second_batch_of_a_stateful_layer() -> Case:
    lstm = layers.LSTM(N, stateful=True, return_sequences=True, name="lstm")
    inputs = keras.Input(batch_shape=(B, T, M))
    model = finished(inputs, lstm(inputs))
    model(data(B, T, M, seed=5))  # the first batch; on JAX `predict` would not move the states
    states = [ops.convert_to_numpy(state).copy() for state in lstm.states]
    assert all(np.abs(state).max() > 0.1 for state in states)

    def forward(run: Unrolled, x: Any) -> Any:
        sequence, _ = run.run("lstm", lstm, x, None, [ops.convert_to_tensor(state) for state in states])
        return head(model, sequence)

    return Case(model, data(B, T, M), data(B, T, K, seed=1), {"lstm": lstm}, forward)


def shared_layer() -> Case:
    """Two calls: the second reads what the first has made."""
    lstm = layers.LSTM(M, return_sequences=True, name="lstm")
    inputs = keras.Input((T, M))
    model = finished(inputs, lstm(lstm(inputs)))

    def forward(run: Unrolled, x: Any) -> Any:
        first, _ = run.run("lstm", lstm, x)
        return head(model, run.run("lstm@2", lstm, first)[0])

    return Case(model, data(B, T, M), data(B, T, K, seed=1), {"lstm": lstm, "lstm@2": lstm}, forward)


CASES = (
    stack,
    masked_stack,
    both_directions,
    masked_both_directions,
    backwards,
    masked_backwards,
    encoder_and_decoder,
    masked_encoder_and_decoder,
    gru_given_its_state,
    second_batch_of_a_stateful_layer,
    shared_layer,
)

RUNS = [(build, "float32", 1e-5) for build in CASES]
if keras.backend.backend() == "tensorflow":  # elsewhere Keras' generic loop multiplies in float32
    RUNS = [*RUNS[:2], *((build, "float64", 1e-10) for build in CASES)]


def by_hand(case: Case, dtype: str) -> dict[str, dict[str, np.ndarray]]:
    """All variables of all leaves, named as in the tree; gradients of each sample's own loss."""
    taps = {
        path: [zero_taps(half, B, T, dtype) for half in halves(layer)] for path, layer in case.layers.items()
    }

    def loss_and_values(taps: Any) -> tuple[Any, Any]:
        run = Unrolled(taps)
        prediction = case.forward(run, keras.tree.map_structure(ops.convert_to_tensor, case.x))
        return ops.mean(ops.square(prediction - ops.convert_to_tensor(case.y))), run.values

    found, values = gradients(loss_and_values, taps)
    return {
        path: joined(layer, [named(*both) for both in zip(found[path], values[path], strict=True)])
        for path, layer in case.layers.items()
    }


def named(found: dict[str, np.ndarray], values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    arrays = {f"{name}_gradient": array * B for name, array in found.items()}
    own = arrays.pop("recurrent_kernel_gradient")
    arrays["step_contribution"] = np.linalg.norm(own, axis=(2, 3))
    arrays |= {"gate_activation" if name == "gate" else name: array for name, array in values.items()}
    return arrays


def joined(layer: Any, parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Directions side by side, gates apart; a SimpleRNN's gate is its state."""
    gates = gate_count(halves(layer)[0])
    arrays = {}
    for name in parts[0]:
        each = [part[name] for part in parts]
        if name.startswith("gate_") and gates > 1:
            each = [array.reshape(*array.shape[:-1], gates, -1) for array in each]
        axis = 1 if name.startswith("initial") else 2
        arrays[name] = each[0] if len(parts) == 1 else np.stack(each, axis)
    if gates == 1:
        del arrays["gate_activation"]
    return arrays


@pytest.mark.parametrize(("build", "dtype", "tolerance"), RUNS)
def test_states_gates_and_their_gradients_are_those_of_the_unrolled_layer(
    build: Callable[[], Case], dtype: str, tolerance: float
) -> None:
    with computing_in(dtype):
        case = build()
        tree = tt.capture(case.model, case.x, case.y)
        right = by_hand(case, dtype)
    assert {node.path for node in tree.leaves} == {f"/{path}" for path in right}
    for path, arrays in right.items():
        dataset = tree[path].to_dataset()
        assert all(dataset[name].dtype == dtype for name in arrays)
        found = {name: difference(dataset[name].values, array) for name, array in arrays.items()}
        assert {name: value for name, value in found.items() if not value <= tolerance} == {}, path
        assert all(np.abs(array).max() > 1e-4 for array in arrays.values()), "nothing was compared"
        # What the layer does not have is not there either.
        inside = {str(name) for name in dataset.data_vars if name in INSIDE}
        assert inside == set(arrays)


INSIDE = {
    *("hidden", "hidden_gradient", "cell", "cell_gradient", "gate_activation", "gate_gradient"),
    *("initial_hidden_gradient", "initial_cell_gradient", "step_contribution"),
}
